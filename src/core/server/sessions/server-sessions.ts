import { hexKey } from "../../handshakes/credentials.ts";
import type { NamedKey } from "../../keys/named-key.ts";
import type { LaneScheduler } from "../../lanes/scheduler.ts";
import { SESSION } from "../../session/session-model.ts";
import type { SessionReport } from "../../status.ts";
import type { ServerPlace } from "../admission/handshake.ts";
import { Session } from "./server-session.ts";

/** The sessions of a server by id and by index, and those without lanes in the order in which they lost the last one. */
export class ServerSessions {
  readonly lingering = new Set<Session>();
  /** By {@link Session.index}. */
  readonly byIndex: (Session | undefined)[] = [];
  readonly #byId = new Map<string, Session>();
  readonly #free: number[] = [];
  /** From one name to the next. */
  readonly #step: number;
  #nextName: number;

  /** @param worker  the place among several workers, whose sessions get different names */
  constructor(worker: ServerPlace | undefined) {
    this.#step = worker?.count ?? 1;
    this.#nextName = 1 + (worker?.index ?? 0);
    this.#skipNumbers(worker?.numbersUsed ?? 0);
  }

  /** Gives no number up to this one from now on. */
  #skipNumbers(last: number): void {
    const behind = last + 1 - this.#nextName;
    if (behind > 0) this.#nextName += this.#step * Math.ceil(behind / this.#step);
  }

  get size(): number {
    return this.#byId.size;
  }

  values(): Iterable<Session> {
    return this.#byId.values();
  }

  find(id: Uint8Array): Session | undefined {
    return this.#byId.get(hexKey(id));
  }

  /** Begins a session. @param number  the number in its name, if another process gave it one */
  begin(
    kind: Session["kind"],
    id: Uint8Array,
    key: Uint8Array,
    scheduler: LaneScheduler | undefined,
    holder: NamedKey | undefined,
    number = this.#nextName,
  ): Session {
    const index = this.#free.pop() ?? this.byIndex.length;
    const session = new Session(index, number, kind, id, key, scheduler, holder);
    this.#skipNumbers(number);
    if (holder !== undefined) holder.sessions++;
    this.byIndex[index] = session;
    this.#byId.set(hexKey(id), session);
    return session;
  }

  /** Ends a session. @returns false if it had ended before */
  end(session: Session): boolean {
    if (!this.#byId.delete(hexKey(session.id))) return false;
    session.state = SESSION.after(session.state, "end");
    if (session.holder !== undefined) session.holder.sessions--;
    this.lingering.delete(session);
    this.byIndex[session.index] = undefined;
    this.#free.push(session.index);
    return true;
  }

  /** The current state of the first `limit` sessions. */
  reports(limit: number): SessionReport[] {
    const reports: SessionReport[] = [];
    for (const session of this.#byId.values()) {
      const { name, kind, state, holder, associationById, connections, lanes } = session;
      if (reports.length === limit) break;
      reports.push({
        session: name,
        kind,
        state: SESSION.name(state),
        ...(holder === undefined ? {} : { key: holder.name }),
        associations: associationById.size,
        lanes: [...connections].map(({ index, lane, tunnel }) => ({
          lane,
          state: "up",
          rttMs: tunnel.rttMs,
          isLate: lanes?.scheduler.isLate(lane) ?? false,
          connection: index,
        })),
      });
    }
    return reports;
  }
}
