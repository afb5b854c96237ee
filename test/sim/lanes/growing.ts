import { LaneCount } from "../../../src/core/client/lanes/lane-count.ts";
import type { EndOptions } from "./end.ts";
import type { Wakeable } from "./event-loop.ts";
import { ScheduledLanes } from "./scheduled.ts";

/** Round trips until a new lane is up at the server, and at the client: TCP's handshake and the session's. */
const SERVER_UP = 1.5;
const CLIENT_UP = 2;

/** Both ends of a session whose lanes come up as with `--lanes auto`: one first, and the others as the client wants them. */
class GrowingLanes implements Wakeable {
  readonly client: ScheduledLanes;
  server!: ScheduledLanes;
  readonly #loop: EndOptions["loop"];
  readonly #rtt: number;
  readonly #count = new LaneCount("auto", false);
  #lanes = 1;

  constructor(options: EndOptions, rtt: number) {
    this.#loop = options.loop;
    this.#rtt = rtt;
    this.#count.begin(0, true, true);
    this.client = new ScheduledLanes(options, 1, (now) => {
      if (this.#count.grow(now, this.client.scheduler.timesLate)) this.#connect();
    });
    this.#connect();
  }

  #connect(): void {
    const { now } = this.#loop;
    for (; this.#lanes < this.#count.wanted; this.#lanes++) {
      this.#loop.at(now + SERVER_UP * this.#rtt, this, 2 * this.#lanes);
      this.#loop.at(now + CLIENT_UP * this.#rtt, this, 2 * this.#lanes + 1);
    }
  }

  wake(now: number, argument: number): void {
    const end = argument % 2 === 0 ? this.server : this.client;
    end.raise(now, argument >> 1);
  }
}

/** Makes the client's and the server's end of each session in turn, with lanes as of `--lanes auto`. @param rtt  in milliseconds */
export function growingLanes(rtt: number): (options: EndOptions) => ScheduledLanes {
  let pair: GrowingLanes | undefined;
  return (options) => {
    if (pair === undefined) {
      pair = new GrowingLanes(options, rtt);
      return pair.client;
    }
    const server = new ScheduledLanes(options, 1);
    pair.server = server;
    pair = undefined;
    return server;
  };
}
