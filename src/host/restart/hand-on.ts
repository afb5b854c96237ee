import type { TunnelServer } from "../../core/server/server.ts";
import type { Logger } from "../log.ts";
import type { AssociationSockets } from "../server/association-sockets.ts";
import type { System } from "../system.ts";
import { required } from "../system.ts";
import type { HandingOnModule, KeptState } from "./kept-state.ts";
import { KeptSockets } from "./kept-state.ts";

/** The parts of a server's host that handing on needs. */
export interface HandingOn {
  readonly core: TunnelServer;
  readonly sockets: AssociationSockets;
  readonly system: System;
  readonly log: Logger;
}

/** Takes the sessions of a server that has stopped accepting, and their sockets, which the caller then owns. */
export function saveState({ core, sockets, system }: HandingOn): KeptState {
  const sessions = core.saveSessions(system.now(), (association) => sockets.ports(association));
  return { clock: sharedMs(system), sessions, sockets: sockets.releaseAll() };
}

/** Continues, in another process, the sessions that {@link saveState} saved. */
export function restoreState(
  { core, sockets, system, log }: HandingOn,
  { clock, sessions, sockets: descriptors }: KeptState,
  openSocket: (association: number, isIpv6: boolean, descriptor: number) => void,
): void {
  const found = new KeptSockets(system.io.native as HandingOnModule, descriptors);
  const elapsedMs = Math.max(0, sharedMs(system) - clock);
  const before = core.sessionCount;
  const restored = core.restoreSessions(system.now(), sessions, elapsedMs);
  // The next datagram of such an association leaves from another port.
  let missing = 0;
  for (const { association, ports } of restored) {
    for (const [place, port] of ports.entries()) {
      if (port === 0) continue;
      const descriptor = sockets.isFull ? undefined : found.take(place === 1, port);
      if (descriptor === undefined) missing++;
      else openSocket(association, place === 1, descriptor);
    }
  }
  found.close();
  const count = core.sessionCount - before;
  const left = sessions.length - count;
  log.info(
    {
      sessions: count,
      associations: restored.length,
      ...(left > 0 ? { ended: left } : {}),
      ...(missing > 0 ? { socketsMissing: missing } : {}),
      afterMs: Math.round(elapsedMs),
    },
    "restored earlier sessions",
  );
}

function sharedMs(system: System): number {
  return required(system.sharedMs, "a clock that all programs share")();
}
