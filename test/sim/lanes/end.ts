import type { EventLoop } from "./event-loop.ts";
import type { TcpEndpoint } from "./tcp/endpoint.ts";

/** One end of a way to carry datagrams between two applications. */
export interface End {
  /** A datagram of the application; `data` is borrowed. */
  send(now: number, flow: number, data: Uint8Array): void;
  /** Delivers a datagram; `data[offset..offset+length)` is borrowed until the call returns. */
  onDatagram: (now: number, flow: number, data: Uint8Array, offset: number, length: number) => void;
  /** Describes its state for a log. */
  describe(): string;
}

export interface EndOptions {
  readonly loop: Pick<EventLoop, "now" | "at">;
  readonly lanes: readonly Pick<TcpEndpoint, "events" | "write">[];
  /** Longest time in the queue, in milliseconds. */
  readonly age: number;
  readonly random: () => number;
}
