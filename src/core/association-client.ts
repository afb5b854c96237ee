import type { TunnelClient } from "./client.ts";
import type { ContextTable } from "./context-table.ts";

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
  | "start"
  | "handleConnected"
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
  readonly contexts: Pick<ContextTable, "address" | "size"> & { readonly generation: ArrayLike<number> };
};
