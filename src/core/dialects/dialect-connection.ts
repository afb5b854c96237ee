import type { Dialect } from "../../wire/dialects/dialect.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import type { Socks5ServerConnection } from "../handshakes/socks5-server.ts";
import type { DialectLink } from "./dialect-link.ts";

/** A connection in a dialect, at the server. */
export interface DialectConnection {
  readonly index: number;
  readonly link: DialectLink;
  /** The SOCKS5 handshake. Set until its request is known. */
  socks: Socks5ServerConnection | undefined;
  /** Set once the dialect is known. */
  dialect: Dialect | undefined;
  /** The target of datagrams without an address. */
  target: AddressBytes | undefined;
  /** Whether the client has named {@link target}. */
  isConnected: boolean;
  /** Flows by their number on the wire, which is 0 in a dialect with one flow. */
  readonly flows: Map<number, number>;
  startedAt: number;
  heardAt: number;
  usedAt: number;
  /** Names that are being looked up for it. */
  lookups: number;
  isDirty: boolean;
  isClosing: boolean;
}

/** The key of a connection's deadline. */
export function deadlineOf(connection: number): number {
  return 2 * connection;
}

export function deadlineOfQueue(connection: number): number {
  return 2 * connection + 1;
}
