import type { EventLoop } from "./event-loop.ts";
import type { TcpEndpoint } from "./tcp.ts";

/** One end of whatever carries datagrams between two applications. */
export interface End {
  /** A datagram of the application; `data` is borrowed. */
  send(now: number, flow: number, data: Uint8Array): void;
  /** What arrives; `data[offset..offset+length)` is borrowed until it returns. */
  onDatagram: (now: number, flow: number, data: Uint8Array, offset: number, length: number) => void;
  /** Words about its state, for a log. */
  describe(): string;
}

export interface EndOptions {
  readonly loop: EventLoop;
  readonly lanes: readonly TcpEndpoint[];
  /** Most milliseconds in the queue. */
  readonly age: number;
  readonly random: () => number;
}
