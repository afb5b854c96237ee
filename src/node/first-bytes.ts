import { performance } from "node:perf_hooks";
import type { FirstBytesProtocol } from "../wire/first-bytes.ts";
import { judgeFirstBytes } from "../wire/first-bytes.ts";
import type { ByteStream, ByteStreamEvents } from "./byte-stream.ts";

/** A connection for an owner to start. */
export interface Startable {
  readonly stream: ByteStream;
  /** Instead of {@link ByteStream.start}: what was already read comes first. */
  readonly start: (events: ByteStreamEvents) => void;
}

/** A connection of which nothing was read. */
export function startable(stream: ByteStream): Startable {
  return { stream, start: (events) => stream.start(events) };
}

/** A connection whose protocol is known. */
export interface ToldStream extends Startable {
  /** When it was accepted, in milliseconds of performance.now(). */
  readonly acceptedAt: number;
}

export interface FirstBytesOptions<Protocol> {
  /** In order of precedence. */
  readonly protocols: readonly Protocol[];
  /** For a client's first bytes; then it is judged by what came. */
  readonly timeoutMs: number;
  /** Connections that may wait for their first bytes. Past it, the oldest is closed. */
  readonly maxWaiting: number;
  /** @param protocol  undefined for none of them */
  readonly onTold: (told: ToldStream, protocol: Protocol | undefined) => void;
  readonly onRefused: (reason: "half_open_limit" | "handshake_timeout") => void;
}

interface Waiting extends ToldStream, ByteStreamEvents {
  timer: NodeJS.Timeout;
}

/** The one place where a listener looks at first bytes: several protocols on one port. */
export class FirstBytes<Protocol extends FirstBytesProtocol> {
  readonly #options: FirstBytesOptions<Protocol>;
  /** The oldest first. */
  readonly #waiting = new Set<Waiting>();

  constructor(options: FirstBytesOptions<Protocol>) {
    this.#options = options;
  }

  get waitingCount(): number {
    return this.#waiting.size;
  }

  accept(stream: ByteStream): void {
    const { protocols, timeoutMs, maxWaiting, onTold, onRefused } = this.#options;
    const acceptedAt = performance.now();
    if (protocols.length === 0) {
      onTold({ ...startable(stream), acceptedAt }, undefined);
      return;
    }
    if (this.#waiting.size >= maxWaiting) {
      const [oldest] = this.#waiting;
      this.#leave(oldest);
      oldest.stream.destroy();
      onRefused("half_open_limit");
    }
    let bytes = new Uint8Array(0);
    let owner: ByteStreamEvents | undefined;
    const tell = (protocol: Protocol | undefined) => {
      this.#leave(waiting);
      onTold(waiting, protocol);
    };
    const waiting: Waiting = {
      stream,
      acceptedAt,
      timer: setTimeout(() => {
        if (bytes.length > 0) tell(judgeFirstBytes(protocols, bytes, bytes.length, true) as Protocol);
        else {
          this.#leave(waiting);
          stream.destroy();
          onRefused("handshake_timeout");
        }
      }, timeoutMs),
      start: (events) => {
        owner = events;
        const first = bytes;
        bytes = new Uint8Array(0);
        if (first.length > 0) events.onBytes(first, first.length);
      },
      onBytes: (chunk, length) => {
        if (owner !== undefined) {
          owner.onBytes(chunk, length);
          return;
        }
        const joined = new Uint8Array(bytes.length + length);
        joined.set(bytes);
        joined.set(chunk.subarray(0, length), bytes.length);
        bytes = joined;
        const protocol = judgeFirstBytes(protocols, bytes, bytes.length, false);
        if (protocol !== "more") tell(protocol);
      },
      onEnd: () => {
        if (owner !== undefined) owner.onEnd();
        else stream.destroy();
      },
      onWritten: () => owner?.onWritten(),
      onClose: (error) => {
        this.#leave(waiting);
        owner?.onClose(error);
      },
    };
    this.#waiting.add(waiting);
    stream.start(waiting);
  }

  close(): void {
    for (const waiting of this.#waiting) {
      this.#leave(waiting);
      waiting.stream.destroy();
    }
  }

  #leave(waiting: Waiting): void {
    clearTimeout(waiting.timer);
    this.#waiting.delete(waiting);
  }
}
