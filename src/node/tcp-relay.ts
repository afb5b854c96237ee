import type { TcpStream } from "./coded-stream.ts";

/** Idle time after which a half-closed connection is reset; the same as `tcp.closing` in OpenBSD's pf. */
const HALF_OPEN_IDLE_MS = 900_000;

/**
 * Relays between two connections until both directions have ended. A FIN is passed on as a FIN, which leaves the other
 * direction open; a reset, or any other failure, as a reset.
 *
 * Both have `allowHalfOpen` and no reader; they may already have received data and a FIN.
 */
export function relayTcp(near: TcpStream, far: TcpStream, halfOpenIdleMs = HALF_OPEN_IDLE_MS): void {
  const reset = () => {
    for (const socket of [near, far]) if (!socket.destroyed) socket.resetAndDestroy();
  };
  const handleHalfOpen = () => {
    // Nothing else notices a peer that vanishes after its FIN: libuv no longer polls a socket it has read to the end.
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
