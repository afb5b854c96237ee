import type { ContextTable } from "../session/context-table.ts";
import type { AssociationReports, LaneReport } from "../status.ts";
import type { TunnelClient } from "./client.ts";

/** What hosts and relays use of a client: `TunnelClient`, or one that has other connections. */
export type AssociationClient = Pick<
  TunnelClient,
  | "counters"
  | "received"
  | "isUp"
  | "way"
  | "associationCount"
  | "lanesUp"
  | "rttMs"
  | "spread"
  | "latencyOf"
  | "sourceOf"
  | "start"
  | "handleDisconnected"
  | "handleStream"
  | "takeReleased"
  | "handleTransmitted"
  | "handleTimeout"
  | "nextTimeout"
  | "pollOutput"
  | "pollTransmit"
  | "pollReady"
  | "openAssociation"
  | "closeAssociation"
  | "handleDatagram"
  | "handleDscp"
  | "handleDatagrams"
  | "close"
> & {
  /** Lanes from 0 that are to be written in every turn, by default all; of others `pollReady` gives those that have something. */
  readonly steadyLanes?: number;
  /** What its lanes do now, of a client that has a fixed number of them. */
  laneReports?(): LaneReport[];
  /** Its associations, as they are now: those of `slots` slots from `first` on. */
  associationReports?(now: number, first: number, slots: number): AssociationReports;
  /** See {@link TunnelClient.measure}. */
  measure?: TunnelClient["measure"];
  isLimited?(now: number, lane: number): boolean;
  /** There is nothing to poll but what lanes transmit, by default never. */
  readonly isPlain?: boolean;
  /** Whether it is worth asking for what a lane has to write, by default always. */
  mayTransmit?(now: number, lane: number): boolean;
  handleNetworkChange?(now: number): void;
  dscpOf?: TunnelClient["dscpOf"];
  handleMoved?: TunnelClient["handleMoved"];
  handleWallClock?(now: number, unixMs: number): void;
  /** The connection requested by a `connect` output has been made. @param isBound  a MASQUE proxy lets this request bind */
  handleConnected(now: number, lane: number, isBound?: boolean): void;
  readonly contexts: Pick<ContextTable, "address" | "size"> & { readonly generation: ArrayLike<number> };
};
