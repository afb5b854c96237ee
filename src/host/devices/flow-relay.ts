import type { AcceptedFlow } from "../../core/tun2socks/tcp/tcp-segments.ts";
import { formatAddress } from "../../wire/socket-address.ts";
import { Cancellation } from "../cancellation.ts";
import type { Logger } from "../log.ts";
import type { Loop } from "../loop.ts";
import type { ByteStream } from "../stream/byte-stream.ts";
import { relayTcp } from "../stream/tcp-relay.ts";
import type { TransferPacing } from "../stream/transfer-pacer.ts";

/** Connects to a flow's target by its route. */
export type ConnectFlow = (flow: AcceptedFlow, cancellation: Cancellation) => Promise<ByteStream>;

export interface FlowRelayOptions {
  readonly loop: Loop;
  readonly log: Logger;
  readonly connect: ConnectFlow;
  /** Paces the flows beside the session that shares their path, if there is one. */
  readonly pacing: () => TransferPacing | undefined;
  /** The flow's connection has ended. */
  readonly onClosed: (flow: number) => void;
  /** The flow's target cannot be connected to: its application gets a reset, and `near` is given up. */
  readonly refuse: (flow: number, near: ByteStream) => void;
}

/** Relays the TCP flows of a device to their targets, regardless of what terminates them. */
export class FlowRelay {
  readonly #options: FlowRelayOptions;
  readonly #streams: (ByteStream | undefined)[] = [];

  constructor(options: FlowRelayOptions) {
    this.#options = options;
  }

  /** @param near  the application's connection, which has just been accepted */
  accept(flow: AcceptedFlow, near: ByteStream): void {
    this.#streams[flow.flow] = near;
    const cancellation = new Cancellation();
    // Nothing is read from it until its target is connected.
    near.handTo({
      onBytes: () => {},
      onEnd: () => {},
      onWritten: () => {},
      onClose: () => {
        cancellation.cancel();
        this.#handleClosed(flow.flow, near);
      },
    });
    void this.#connect(flow, near, cancellation);
  }

  /** Core has forgotten a flow before its connection ended. @returns the connection, which is the caller's to end */
  forget(flow: number): ByteStream | undefined {
    const stream = this.#streams[flow];
    this.#streams[flow] = undefined;
    return stream;
  }

  close(): void {
    for (const stream of this.#streams) stream?.destroy();
  }

  #handleClosed(flow: number, near: ByteStream): void {
    if (this.#streams[flow] !== near) return;
    this.#streams[flow] = undefined;
    this.#options.onClosed(flow);
  }

  async #connect(flow: AcceptedFlow, near: ByteStream, cancellation: Cancellation): Promise<void> {
    const { log, loop, connect, pacing, refuse } = this.#options;
    try {
      const far = await connect(flow, cancellation);
      if (cancellation.isCancelled) far.destroy();
      else {
        const onClosed = () => this.#handleClosed(flow.flow, near);
        relayTcp(near, far, loop, { pacing: pacing(), onClosed });
      }
    } catch (error) {
      if (this.#streams[flow.flow] !== near) return;
      const target = formatAddress(flow.target);
      log.debug({ target, error: (error as Error).message }, "cannot connect a flow");
      this.#streams[flow.flow] = undefined;
      refuse(flow.flow, near);
    }
  }
}
