/**
 * Several ways for TCP flows. Each flow tries them in order, and each way has a head start before the next (RFC 8305 §5). A way works when
 * its last proxy has answered or, if that does not answer by itself (`ss://`), has accepted the connection. Later flows keep that way. A
 * proxy's answer about the target is final, because the target is the same by every way: a flow changes its way only before the
 * application's first byte is sent.
 */
import { HEAD_START_MS, KEPT_MS } from "../../core/client/ways/way-race.ts";
import type { ProtocolError } from "../../core/errors.ts";
import { HostError } from "../../core/errors.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import type { Outgoing } from "../addresses/outgoing.ts";
import { Cancellation } from "../cancellation.ts";
import type { Logger } from "../log.ts";
import type { Loop, Timer } from "../loop.ts";
import type { ByteStream } from "../stream/byte-stream.ts";
import type { System } from "../system.ts";
import type { TcpWay } from "./carrier-chain.ts";
import { tcpWay } from "./carrier-chain.ts";
import { redactUrl } from "./hop.ts";

/** @param texts  ways in order of preference, each with hops separated by blanks; none to connect directly */
export function tcpWays(
  texts: readonly string[],
  system: System,
  outgoing: Outgoing | undefined,
  log: Logger,
): TcpWay {
  if (texts.length < 2) return tcpWay(texts[0], system, outgoing);
  const ways = texts.map((text) => ({ ...tcpWay(text, system, outgoing), name: redactUrl(text) }));
  return new TcpWays(ways, system, log);
}

export interface NamedWay extends TcpWay {
  /** For logs; without secrets. */
  readonly name: string;
}

export class TcpWays implements TcpWay {
  readonly #ways: readonly NamedWay[];
  readonly #loop: Loop;
  readonly #log: Logger;
  #kept = 0;
  #keptAt = Number.NEGATIVE_INFINITY;

  constructor(ways: readonly NamedWay[], loop: Loop, log: Logger) {
    this.#ways = ways;
    this.#loop = loop;
    this.#log = log;
  }

  connect(target: AddressBytes, cancellation: Cancellation): Promise<ByteStream> {
    return new Promise((done, failed) => {
      const waiting = this.#order();
      /** Attempts in progress. */
      const attempts = new Map<number, Cancellation>();
      const reasons: string[] = [];
      let timer: Timer | undefined;
      let isOver = false;
      const end = () => {
        isOver = true;
        timer?.cancel();
        leave();
        for (const attempt of attempts.values()) attempt.cancel();
      };
      const fail = (error: Error) => {
        end();
        failed(error);
      };
      const beginNext = () => {
        timer?.cancel();
        const way = waiting.shift();
        if (way === undefined) {
          if (attempts.size === 0) fail(new HostError("ERR_CONNECT", reasons.join("; ")));
          return;
        }
        timer = this.#loop.after(HEAD_START_MS, beginNext);
        const attempt = new Cancellation();
        attempts.set(way, attempt);
        let isReached = false;
        const reached = () => {
          if (attempt.isCancelled || isReached) return;
          isReached = true;
          timer?.cancel();
          this.#handleWorked(way);
          for (const [other, one] of attempts) {
            if (other === way) continue;
            attempts.delete(other);
            one.cancel();
          }
        };
        this.#ways[way].connect(target, attempt, reached).then(
          (stream) => {
            if (isOver || attempt.isCancelled) stream.destroy();
            else {
              end();
              done(stream);
            }
          },
          (error: Error) => {
            if (isOver || !attempts.delete(way)) return;
            if (isReached && isOfTarget(error)) fail(error);
            else {
              reasons.push(error.message);
              beginNext();
            }
          },
        );
      };
      const leave = cancellation.onCancel(() =>
        fail(new HostError("ERR_CONNECT", "the attempt was cancelled")),
      );
      if (!cancellation.isCancelled) beginNext();
    });
  }

  async close(): Promise<void> {
    await Promise.all(this.#ways.map((way) => way.close()));
  }

  #order(): number[] {
    const all = [...this.#ways.keys()];
    if (this.#loop.now() - this.#keptAt >= KEPT_MS) return all;
    return [this.#kept, ...all.filter((way) => way !== this.#kept)];
  }

  #handleWorked(way: number): void {
    const now = this.#loop.now();
    const isOther = way !== this.#kept;
    if (isOther || now - this.#keptAt >= KEPT_MS) this.#keptAt = now;
    this.#kept = way;
    if (isOther) this.#log.info({ way: this.#ways[way].name }, "TCP takes another way");
  }
}

/** True for a proxy's answer that it cannot connect to the target. */
function isOfTarget({ cause }: Error): boolean {
  return (cause as Partial<ProtocolError> | undefined)?.code === "ERR_SOCKS_REPLY";
}
