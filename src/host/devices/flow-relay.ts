import { HostError } from "../../core/errors.ts";
import type { AcceptedFlow } from "../../core/tun2socks/tcp-segments.ts";
import type { Tun2Socks } from "../../core/tun2socks/tun2socks.ts";
import { formatAddress } from "../../wire/socket-address.ts";
import { Cancellation } from "../cancellation.ts";
import type { Logger } from "../log.ts";
import type { Loop } from "../loop.ts";
import type { ByteStream } from "../stream/byte-stream.ts";
import type { StreamListener, Tcp } from "../stream/tcp.ts";
import { relayTcp } from "../stream/tcp-relay.ts";

export interface FlowRelayOptions {
  /** Called at each use, as core is created once the listeners' ports are known. */
  readonly core: () => Tun2Socks;
  readonly loop: Loop;
  readonly tcp: Tcp;
  readonly log: Logger;
  /** Connects to a flow's target by its route. */
  readonly connect: (flow: AcceptedFlow, cancellation: Cancellation) => Promise<ByteStream>;
  /** Drains the core. */
  readonly drain: () => void;
}

/** Relays TCP flows of a device: connects what the kernel accepts on the device's own address to the flow's target. */
export class FlowRelay {
  readonly #options: FlowRelayOptions;
  readonly #listeners: StreamListener[] = [];
  readonly #streams: (ByteStream | undefined)[] = [];

  constructor(options: FlowRelayOptions) {
    this.#options = options;
  }

  /** Listens on an address of the device. @returns the port. @throws HostError ERR_LISTEN */
  async listen(host: string): Promise<number> {
    const family = host.includes(":") ? 6 : 4;
    const { tcp, log } = this.#options;
    const listener = await tcp
      .listen(
        { host, port: 0 },
        {
          onStream: (stream) => this.#accept(stream, family),
          onError: (error) => log.warn({ error: error.message }, "cannot accept"),
        },
      )
      .catch((cause: Error) => {
        throw new HostError("ERR_LISTEN", `${host}: ${cause.message}`, { cause });
      });
    this.#listeners.push(listener);
    return listener.port;
  }

  /** Core has forgotten a flow before its connection ended. */
  forget(flow: number, reason: "finished" | "idle" | "evicted"): void {
    const stream = this.#streams[flow];
    this.#streams[flow] = undefined;
    if (reason !== "finished") stream?.destroy();
  }

  async close(): Promise<void> {
    const closed = this.#listeners.map((listener) => listener.close());
    for (const stream of this.#streams) stream?.destroy();
    await Promise.all(closed);
  }

  #accept(near: ByteStream, family: 4 | 6): void {
    const core = this.#options.core();
    const flow = core.acceptFlow(this.#options.loop.now(), family, near.remotePort ?? 0);
    if (flow === undefined) {
      near.destroy();
      return;
    }
    this.#streams[flow.flow] = near;
    const cancellation = new Cancellation();
    // Nothing is read from it until its target is connected.
    near.handTo({
      onBytes: () => {},
      onEnd: () => {},
      onWritten: () => {},
      onClose: () => {
        cancellation.cancel();
        this.#handleClosed(flow, near);
      },
    });
    void this.#connect(flow, near, cancellation);
  }

  #handleClosed(flow: AcceptedFlow, near: ByteStream): void {
    if (this.#streams[flow.flow] !== near) return;
    this.#streams[flow.flow] = undefined;
    this.#options.core().endFlow(this.#options.loop.now(), flow.flow);
    this.#options.drain();
  }

  async #connect(flow: AcceptedFlow, near: ByteStream, cancellation: Cancellation): Promise<void> {
    const { log, connect, drain } = this.#options;
    const core = this.#options.core();
    try {
      const far = await connect(flow, cancellation);
      if (cancellation.isCancelled) far.destroy();
      else relayTcp(near, far, this.#options.loop, { onClosed: () => this.#handleClosed(flow, near) });
    } catch (error) {
      if (this.#streams[flow.flow] !== near) return;
      const target = formatAddress(flow.target);
      log.debug({ target, error: (error as Error).message }, "cannot connect a flow");
      this.#streams[flow.flow] = undefined;
      // The application gets a reset at once.
      while (!core.refuseFlow(flow.flow)) drain();
      drain();
      near.destroy();
    }
  }
}
