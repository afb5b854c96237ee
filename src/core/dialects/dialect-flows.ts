import type { Dialect } from "../../wire/dialects/dialect.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { ATYP_DOMAIN } from "../../wire/socket-address.ts";
import type { Counters, DropReason } from "../counters.ts";
import type { Deadlines } from "../deadlines.ts";
import type { Fifo } from "../fifo.ts";
import { IdleLists } from "../idle-lists.ts";
import { Permissions } from "../server/permissions.ts";
import type { SendPool } from "../session/queue/send-pool.ts";
import type { DialectConnection } from "./dialect-connection.ts";
import { deadlineOf } from "./dialect-connection.ts";
import type { DialectServerOptions } from "./dialect-server-options.ts";
import type { DialectServerOutput } from "./dialect-server-output.ts";
import { RemoteLookups } from "./remote-lookups.ts";
import { RemoteTable } from "./remote-table.ts";

const NONE = -1;
/** Milliseconds within which uses count as one in the order of idleness. */
const IDLE_GRAIN_MS = 100;

/** What happens to datagrams for a remote: "known": sent; "denied": dropped; "asked": held until its name is resolved. */
export type RemoteState = "known" | "denied" | "asked";

/** What {@link DialectFlows} uses of its server. */
export interface FlowsHost {
  readonly options: DialectServerOptions;
  readonly counters: Counters;
  readonly outputs: Fifo<DialectServerOutput>;
  readonly deadlines: Deadlines;
  readonly pool: SendPool;
  /** By connection number. */
  readonly connections: readonly (DialectConnection | undefined)[];
}

/** The flows of a server's connections, each with a UDP port of its own; their remotes, and which senders they accept. */
export class DialectFlows {
  count = 0;
  readonly remotes: RemoteTable;
  /** By flow. */
  readonly owner: (DialectConnection | undefined)[] = [];
  readonly wireId: number[] = [];
  readonly isDns: boolean[] = [];
  /** By slot of {@link remotes}. */
  readonly state: RemoteState[] = [];
  readonly lookups: RemoteLookups;

  readonly #host: FlowsHost;
  readonly #free: number[] = [];
  /** Flows by idleness, in one list per connection. */
  readonly #idle = new IdleLists(IDLE_GRAIN_MS);
  readonly #permissions: Permissions;
  /** By slot of {@link remotes}. */
  readonly #grants: number[] = [];

  constructor(host: FlowsHost) {
    this.#host = host;
    this.remotes = new RemoteTable(host.options.seed);
    this.#permissions = new Permissions(host.options.seed);
    this.lookups = new RemoteLookups(this.remotes, host.counters, host.outputs);
  }

  // Flows

  isFullFor({ index, dialect }: DialectConnection): boolean {
    return this.#idle.size(index) >= this.#limitOf(dialect!) || this.count >= this.#host.options.maxFlows;
  }

  #limitOf({ flows }: Dialect): number {
    return Math.min(flows, this.#host.options.maxFlowsPerConnection);
  }

  /** Opens a flow. @returns its number, or -1 if there is no room */
  open(now: number, connection: DialectConnection, wireId: number, isDns: boolean): number {
    const { options, counters, deadlines, outputs } = this.#host;
    if (this.isFullFor(connection)) {
      const own = this.#idle.oldest(connection.index);
      const victim = own === NONE ? this.#idle.oldest(this.#largestConnection()) : own;
      if (victim === NONE) return NONE;
      counters.refused.association_evicted++;
      this.close(victim, "association_limit");
    }
    const flow = this.#free.pop() ?? this.owner.length;
    this.owner[flow] = connection;
    this.wireId[flow] = wireId;
    this.isDns[flow] = isDns;
    connection.flows.set(wireId, flow);
    this.#idle.touch(now, flow, connection.index);
    deadlines.setEarlier(deadlineOf(connection.index), now + options.idleTimeoutMs);
    this.count++;
    outputs.push({ kind: "open", flow });
    return flow;
  }

  /** The number of the connection with most flows. */
  #largestConnection(): number {
    let largest = 0;
    for (const { index } of this.#host.connections.filter((each) => each !== undefined)) {
      if (this.#idle.size(index) > this.#idle.size(largest)) largest = index;
    }
    return largest;
  }

  /** @param reason  for which waiting answers are dropped */
  close(flow: number, reason: DropReason = "unknown_context"): void {
    const connection = this.owner[flow];
    if (connection === undefined) return;
    this.#host.pool.removeFlow(flow, reason);
    for (const slot of [...this.remotes.of(flow)]) this.removeRemote(slot);
    connection.flows.delete(this.wireId[flow]);
    this.#idle.remove(flow);
    this.owner[flow] = undefined;
    this.count--;
    this.#host.outputs.push({ kind: "release", flow });
  }

  /** Frees the number of a flow whose port the host has closed. */
  handleReleased(flow: number): void {
    this.#free.push(flow);
  }

  /** Records a use of a flow and a remote. @param slot  the remote's, or -1 */
  touch(now: number, flow: number, slot: number): void {
    this.#idle.refresh(now, flow);
    if (slot !== NONE) this.remotes.idle.refresh(now, slot);
  }

  /** When the first flow of a connection expires. */
  expiresAt({ index }: DialectConnection): number {
    return this.#idle.expiresAt(index, this.#host.options.idleTimeoutMs);
  }

  expire(now: number, { index }: DialectConnection): void {
    const next = () => this.#idle.expired(now, index, this.#host.options.idleTimeoutMs);
    for (let flow = next(); flow !== NONE; flow = next()) this.close(flow);
  }

  // Remotes

  /** Adds a remote to a flow. @returns its slot, or -1 if too many names are being looked up */
  addRemote(now: number, connection: DialectConnection, flow: number, address: AddressBytes): number {
    const { nameserver, permits, resolvesNames } = this.#host.options;
    const isAsked = address[0] === ATYP_DOMAIN && resolvesNames;
    if (isAsked && this.lookups.isFullFor(connection)) return NONE;
    const slot = this.remotes.add(now, flow, address, connection.index);
    if (isAsked) {
      this.state[slot] = "asked";
      this.lookups.begin(connection, slot, address);
      return slot;
    }
    const target = this.isDns[flow] ? nameserver : address;
    const isPermitted = target !== undefined && (!resolvesNames || permits(target));
    this.setTarget(slot, isPermitted ? target : undefined);
    return slot;
  }

  /** Sets the target of a remote. @param target  undefined if it is denied */
  setTarget(slot: number, target: AddressBytes | undefined): void {
    this.state[slot] = target === undefined ? "denied" : "known";
    if (target === undefined) {
      this.#host.counters.refused.target_denied++;
      return;
    }
    this.remotes.setTarget(slot, target);
    this.#grants[slot] = this.#permissions.grant(this.remotes.flow[slot], target);
  }

  removeRemote(slot: number): void {
    if (this.state[slot] === "known") this.#permissions.revoke(this.#grants[slot]);
    this.lookups.dropHeld("unresolved", slot);
    this.remotes.remove(slot);
  }

  /** Whether a flow accepts datagrams of a sender that is none of its remotes (RFC 4787 §5). */
  hears(flow: number, remote: AddressBytes): boolean {
    switch (this.#host.options.filtering) {
      case "endpoint-independent":
        return true;
      case "address-dependent":
        return this.#permissions.has(flow, remote);
      case "address-and-port-dependent":
        return false;
    }
  }
}
