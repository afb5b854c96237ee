/** Ints of one row, and what stands where in it. */
export const ROW_INTS = 6;
const ROW_SOCKET = 0;
const ROW_OFFSET = 1;
const ROW_LENGTH = 2;
const ROW_ADDRESS = 3;
const ROW_ADDRESS_LENGTH = 4;
const ROW_LOCAL = 5;

/**
 * Datagrams that came from sockets, one a row: socket, offset and length of the payload in `data`, offset and length of
 * the source in `addresses`, and a number for the address of this machine that it came to. Neighbours of one source
 * that came to one address have the same address offset. All of it is borrowed until the call that hands it in returns.
 */
export class ReceivedDatagrams {
  data: Uint8Array;
  addresses: Uint8Array;
  readonly rows: Int32Array;

  constructor(data: Uint8Array, addresses: Uint8Array, rows: Int32Array) {
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

  /** The number that the socket gave the address of this machine; 0 where it is not told. */
  local(row: number): number {
    return this.rows[row * ROW_INTS + ROW_LOCAL];
  }

  /** The first row from `first` on, before `end`, that has another source than `first`, or came to another address. */
  endOfRun(first: number, end: number): number {
    const source = this.addressOffset(first);
    let row = first + 1;
    while (row < end && this.addressOffset(row) === source) row++;
    return row;
  }

  /** Enters the one datagram of a socket that delivers singly. */
  setOnly(data: Uint8Array, offset: number, length: number, address: Uint8Array): void {
    const { rows } = this;
    this.data = data;
    this.addresses = address;
    rows[ROW_OFFSET] = offset;
    rows[ROW_LENGTH] = length;
    rows[ROW_ADDRESS] = 0;
    rows[ROW_ADDRESS_LENGTH] = address.length;
  }
}
