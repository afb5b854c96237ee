import type { Datapath } from "../datapath/datapath.ts";
import { TYPESCRIPT_DATAPATH } from "../datapath/typescript-datapath.ts";

/** Integers of one row, and their positions. */
export const ROW_INTS = 6;
const ROW_SOCKET = 0;
const ROW_OFFSET = 1;
const ROW_LENGTH = 2;
const ROW_ADDRESS = 3;
const ROW_ADDRESS_LENGTH = 4;
const ROW_LOCAL = 5;

/**
 * Datagrams received from sockets, one per row: socket, offset and length of the payload in `data`, offset and length of
 * the source in `addresses`, and a number for the local address that it arrived at. Consecutive rows with the same source
 * and local address share the address offset. Everything is borrowed until the call that passes it returns.
 */
export class ReceivedDatagrams {
  data: Uint8Array;
  addresses: Uint8Array;
  readonly rows: Int32Array;
  readonly #datapath: Datapath;

  constructor(
    data: Uint8Array,
    addresses: Uint8Array,
    rows: Int32Array,
    datapath: Datapath = TYPESCRIPT_DATAPATH,
  ) {
    this.#datapath = datapath;
    this.data = data;
    this.addresses = addresses;
    this.rows = rows;
  }

  socket(row: number): number {
    return this.rows[row * ROW_INTS + ROW_SOCKET];
  }

  offset(row: number): number {
    return this.rows[row * ROW_INTS + ROW_OFFSET];
  }

  length(row: number): number {
    return this.rows[row * ROW_INTS + ROW_LENGTH];
  }

  addressOffset(row: number): number {
    return this.rows[row * ROW_INTS + ROW_ADDRESS];
  }

  addressLength(row: number): number {
    return this.rows[row * ROW_INTS + ROW_ADDRESS_LENGTH];
  }

  /** The socket's number for the local address; 0 if unknown. */
  local(row: number): number {
    return this.rows[row * ROW_INTS + ROW_LOCAL];
  }

  /** The first row after `first`, or `end`, whose source or local address differs from that of `first`. */
  endOfRun(first: number, end: number): number {
    return end - first === 1 ? end : this.#datapath.endOfEqual(this.rows, ROW_INTS, ROW_ADDRESS, first, end);
  }

  /** The first row after `first`, or `end`, whose socket differs from that of `first`. */
  endOfSocket(first: number, end: number): number {
    return end - first === 1 ? end : this.#datapath.endOfEqual(this.rows, ROW_INTS, ROW_SOCKET, first, end);
  }

  /** Bytes of the payloads of rows `first` to `end - 1`. */
  bytes(first: number, end: number): number {
    return this.#datapath.sum(this.rows, ROW_INTS, ROW_LENGTH, first, end);
  }

  /** Sets a single row, for a socket that delivers datagrams one by one. @param local  see {@link local} */
  setOnly(data: Uint8Array, offset: number, length: number, address: Uint8Array, local: number): void {
    const { rows } = this;
    this.data = data;
    this.addresses = address;
    rows[ROW_OFFSET] = offset;
    rows[ROW_LENGTH] = length;
    rows[ROW_ADDRESS] = 0;
    rows[ROW_ADDRESS_LENGTH] = address.length;
    rows[ROW_LOCAL] = local;
  }
}
