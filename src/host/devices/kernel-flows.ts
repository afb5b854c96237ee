import { HostError } from "../../core/errors.ts";
import type { FlowEnd } from "../../core/tun2socks/tcp/tcp-segments.ts";
import type { Tun2Socks } from "../../core/tun2socks/tun2socks.ts";
import type { Logger } from "../log.ts";
import type { Loop } from "../loop.ts";
import type { ByteStream } from "../stream/byte-stream.ts";
import type { StreamListener, Tcp } from "../stream/tcp.ts";
import { acceptErrors } from "../stream/tcp.ts";
import type { ConnectFlow, FlowRelayOptions } from "./flow-relay.ts";
import { FlowRelay } from "./flow-relay.ts";

export interface KernelFlowsOptions {
  /** Called for each use, because core is created once the ports of the listeners are known. */
  readonly core: () => Tun2Socks;
  readonly loop: Loop;
  readonly tcp: Tcp;
  readonly log: Logger;
  readonly connect: ConnectFlow;
  readonly pacing: FlowRelayOptions["pacing"];
  /** Drains the core. */
  readonly drain: () => void;
  /** Nothing more is accepted on an address of the device. */
  readonly onListenerFailed: (error: Error) => void;
}

/** TCP flows that the kernel accepts on the device's own addresses. */
export class KernelFlows {
  readonly #options: KernelFlowsOptions;
  readonly #relay: FlowRelay;
  readonly #listeners: StreamListener[] = [];

  constructor(options: KernelFlowsOptions) {
    this.#options = options;
    this.#relay = new FlowRelay({
      ...options,
      onClosed: (flow) => {
        options.core().endFlow(options.loop.now(), flow);
        options.drain();
      },
      refuse: (flow, near) => {
        // The application gets a reset at once.
        while (!options.core().refuseFlow(flow)) options.drain();
        options.drain();
        near.destroy();
      },
    });
  }

  /** Listens on an address of the device. @returns the port. @throws HostError ERR_LISTEN */
  async listen(host: string): Promise<number> {
    const family = host.includes(":") ? 6 : 4;
    const { tcp, log, onListenerFailed } = this.#options;
    const listener = await tcp
      .listen(
        { host, port: 0 },
        {
          onStream: (stream) => this.#accept(stream, family),
          onError: acceptErrors(log, onListenerFailed),
        },
      )
      .catch((cause: Error) => {
        throw new HostError("ERR_LISTEN", `${host}: ${cause.message}`, { cause });
      });
    this.#listeners.push(listener);
    return listener.port;
  }

  /** Core forgot a flow before its connection ended. */
  forget(flow: number, reason: FlowEnd): void {
    const stream = this.#relay.forget(flow);
    if (reason !== "finished") stream?.destroy();
  }

  async close(): Promise<void> {
    const closed = this.#listeners.map((listener) => listener.close());
    this.#relay.close();
    await Promise.all(closed);
  }

  #accept(near: ByteStream, family: 4 | 6): void {
    const { core, loop } = this.#options;
    const flow = core().acceptFlow(loop.now(), family, near.remotePort ?? 0);
    if (flow === undefined) near.destroy();
    else this.#relay.accept(flow, near);
  }
}
