import type { Socket } from "node:net";

/** A relayed connection that has ended one way may be idle for so long: what OpenBSD's pf gives one that is closing. */
export const HALF_OPEN_IDLE_MS = 900_000;

/**
 * Relays two connections both ways until both directions have ended. Each end is passed on as it came: a FIN as a FIN,
 * which leaves the other direction open, and a reset or any other failure as a reset.
 *
 * @param near  paused or without a reader; both with `allowHalfOpen`, whatever has been received of them already
 * @param halfOpenIdleMs  for tests
 */
export function relayTcp(near: Socket, far: Socket, halfOpenIdleMs = HALF_OPEN_IDLE_MS): void {
  const reset = () => {
    for (const socket of [near, far]) if (!socket.destroyed) socket.resetAndDestroy();
  };
  const handleHalfOpen = () => {
    // A peer that went away after its FIN is noticed by nothing else: no one reads from it any more.
    for (const socket of [near, far]) socket.setTimeout(halfOpenIdleMs);
  };
  for (const [from, to] of [
    [near, far],
    [far, near],
  ]) {
    from.on("error", () => {});
    from.once("timeout", reset);
    from.once("close", () => {
      const isOrderly = from.errored === null && from.readableEnded && from.writableFinished;
      if (!isOrderly) reset();
    });
    if (from.readableEnded) handleHalfOpen();
    else from.once("end", handleHalfOpen);
    from.pipe(to);
  }
  if (near.destroyed || far.destroyed) reset();
}
