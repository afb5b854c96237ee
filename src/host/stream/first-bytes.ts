import type { FirstBytesProtocol } from "../../wire/http/first-bytes.ts";
import { judgeFirstBytes } from "../../wire/http/first-bytes.ts";
import type { Loop, Timer } from "../loop.ts";
import type { ByteStream } from "./byte-stream.ts";

export interface FirstBytesOptions<Protocol> {
  readonly loop: Loop;
  /** In order of precedence. */
  readonly protocols: readonly Protocol[];
  /** Time limit for a client's first bytes, after which the bytes that arrived decide. */
  readonly timeoutMs: number;
  /** Limit of connections that wait for their first bytes. Beyond it, the oldest is closed. */
  readonly maxWaiting: number;
  /**
   * A connection whose protocol is known, to be handed on.
   *
   * @param acceptedAt  by the clock of the loop
   * @param protocol    undefined if it is none of them
   */
  readonly onTold: (stream: ByteStream, acceptedAt: number, protocol: Protocol | undefined) => void;
  readonly onRefused: (reason: "half_open_limit" | "handshake_timeout") => void;
}

interface Waiting {
  readonly stream: ByteStream;
  readonly timer: Timer;
}

/** The one place where a listener examines first bytes, for several protocols on one port. */
export class FirstBytes<Protocol extends FirstBytesProtocol> {
  readonly #options: FirstBytesOptions<Protocol>;
  /** Oldest first. */
  readonly #waiting = new Set<Waiting>();

  constructor(options: FirstBytesOptions<Protocol>) {
    this.#options = options;
  }

  get waitingCount(): number {
    return this.#waiting.size;
  }

  accept(stream: ByteStream): void {
    const { loop, protocols, timeoutMs, maxWaiting, onTold, onRefused } = this.#options;
    const acceptedAt = loop.now();
    if (protocols.length === 0) {
      onTold(stream, acceptedAt, undefined);
      return;
    }
    if (this.#waiting.size >= maxWaiting) {
      const [oldest] = this.#waiting;
      this.#leave(oldest);
      oldest.stream.destroy();
      onRefused("half_open_limit");
    }
    let bytes = new Uint8Array(0);
    const tell = (protocol: Protocol | undefined) => {
      this.#leave(waiting);
      stream.unread(bytes);
      onTold(stream, acceptedAt, protocol);
    };
    const waiting: Waiting = {
      stream,
      timer: loop.after(timeoutMs, () => {
        if (bytes.length > 0) tell(judgeFirstBytes(protocols, bytes, bytes.length, true) as Protocol);
        else {
          this.#leave(waiting);
          stream.destroy();
          onRefused("handshake_timeout");
        }
      }),
    };
    this.#waiting.add(waiting);
    stream.start({
      onBytes: (chunk, length) => {
        const joined = new Uint8Array(bytes.length + length);
        joined.set(bytes);
        joined.set(chunk.subarray(0, length), bytes.length);
        bytes = joined;
        const protocol = judgeFirstBytes(protocols, bytes, bytes.length, false);
        if (protocol !== "more") tell(protocol);
      },
      onEnd: () => stream.destroy(),
      onWritten: () => {},
      onClose: () => this.#leave(waiting),
    });
  }

  close(): void {
    for (const waiting of this.#waiting) {
      this.#leave(waiting);
      waiting.stream.destroy();
    }
  }

  #leave(waiting: Waiting): void {
    waiting.timer.cancel();
    this.#waiting.delete(waiting);
  }
}
