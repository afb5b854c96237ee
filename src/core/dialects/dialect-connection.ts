import type { Dialect } from "../../wire/dialects/dialect.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import type { Socks5ServerConnection } from "../handshakes/socks5-server.ts";
import type { DialectLink } from "./dialect-link.ts";

/** A connection in a dialect, at its server. */
export interface DialectConnection {
  readonly index: number;
  readonly link: DialectLink;
  /** Set until the SOCKS5 request is known. */
  socks: Socks5ServerConnection | undefined;
  /** Set from then on. */
  dialect: Dialect | undefined;
  /** Where datagrams without an address go. */
  target: AddressBytes | undefined;
  /** True if the client has named that target. */
  isConnected: boolean;
  /** Flow by its number on the wire; of a dialect with one flow, by 0. */
  readonly flows: Map<number, number>;
  startedAt: number;
  heardAt: number;
  usedAt: number;
  /** Names that are being looked up. */
  lookups: number;
  isDirty: boolean;
  isClosing: boolean;
}

/** Key of the deadline of a connection. */
export function deadlineOf(connection: number): number {
  return 2 * connection;
}

export function deadlineOfQueue(connection: number): number {
  return 2 * connection + 1;
}
