import type { ContextTable } from "../session/context-table.ts";
import type { AssociationReports, LaneReport } from "../status.ts";
import type { TunnelClient } from "./client.ts";

/** The part of a client that hosts and relays use: of `TunnelClient`, or of a client with other connections. */
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
  | "isLive"
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
  /** Lanes below this one have to be polled in every turn; `pollReady` names others that have output. Default: all lanes. */
  readonly steadyLanes?: number;
  /** The current state of its lanes, for a client with a fixed number of them. */
  laneReports?(): LaneReport[];
  /** The current state of its associations in `slots` slots from `first` on. */
  associationReports?(now: number, first: number, slots: number): AssociationReports;
  /** See {@link TunnelClient.measure}. */
  measure?: TunnelClient["measure"];
  /** See {@link TunnelClient.pathWatch}. */
  readonly pathWatch?: TunnelClient["pathWatch"];
  isLimited?(now: number, lane: number): boolean;
  /** Whether nothing but `pollTransmit` has to be polled. Default: never. */
  readonly isPlain?: boolean;
  /** Whether a lane may have output for `pollTransmit`. Default: always. */
  mayTransmit?(now: number, lane: number): boolean;
  handleNetworkChange?(now: number): void;
  dscpOf?: TunnelClient["dscpOf"];
  handleMoved?: TunnelClient["handleMoved"];
  handleWallClock?(now: number, unixMs: number): void;
  /** The connection requested by a `connect` output has been made. @param isBound  whether a MASQUE proxy lets this request bind */
  handleConnected(now: number, lane: number, isBound?: boolean): void;
  readonly contexts: Pick<ContextTable, "address" | "size"> & { readonly generation: ArrayLike<number> };
};
