/**
 * Limits what a session without receipts has on the way while one with receipts may follow it (lane-count.ts).
 *
 * A server's address on this machine may be that of a relay, such as ss-tunnel, that takes as much as it is given. A flood at the beginning
 * would fill its buffers and the queue of the path, and the session with receipts that follows would begin behind them: its round trips
 * would be wrong, and its first seconds slow. So until then, the session sends one initial window per round trip, as a heartbeat after it
 * measures. Over a short path the first answer ends the limit.
 */
import { MAX_PAYLOAD_BYTES } from "../../../wire/capsule.ts";
import { FIRST_WINDOW_BYTES } from "../../lanes/rate/modes/start-mode.ts";
import type { Tunnel } from "../../session/tunnel.ts";
import type { LaneCount } from "./lane-count.ts";
import { FAR_MS } from "./lane-count.ts";

const NO_LIMIT = Number.POSITIVE_INFINITY;
/** Most bytes that accumulate while the application sends nothing: enough for the longest datagram and its header. */
const MAX_BYTES = MAX_PAYLOAD_BYTES + 16;
/**
 * The limit ends with the first round trip after this time in milliseconds, because a relay may refuse the connection of the next session.
 */
const MAX_MS = 3_000;

export class UnmeasuredPath {
  readonly #count: LaneCount;
  #endsAt = Number.NEGATIVE_INFINITY;

  constructor(count: LaneCount) {
    this.#count = count;
  }

  /** A lane without receipts is up. */
  begin(now: number, tunnel: Tunnel): void {
    // Also after the path has turned out to be long, because this lane may have taken the place of one that was lost before the next
    // session was up.
    if (!this.#count.mayAddReceipts) return;
    tunnel.allowance = FIRST_WINDOW_BYTES;
    this.#endsAt = now + MAX_MS;
  }

  /** Takes a round trip of a lane, in milliseconds. */
  handleRoundTrip(now: number, tunnel: Tunnel, roundTrip: number): void {
    if (tunnel.allowance === NO_LIMIT) return;
    if (roundTrip < FAR_MS || now >= this.#endsAt) tunnel.allowance = NO_LIMIT;
    else tunnel.allowance = Math.min(tunnel.allowance + FIRST_WINDOW_BYTES, MAX_BYTES);
  }
}
