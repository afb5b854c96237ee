import type { Packet } from "../link.ts";

export const MSS = 1448;
/** IP and TCP with the timestamp option. */
export const HEADER_BYTES = 52;

export class TcpPacket implements Packet {
  readonly size: number;
  readonly to: Packet["to"];
  readonly seq: number;
  readonly length: number;
  readonly ack: number;
  readonly sacks: readonly number[] | undefined;
  /** Timestamp and echoed timestamp (RFC 7323). */
  readonly stamp: number;
  readonly echo: number;
  /** Reports data received twice (D-SACK, RFC 2883). */
  readonly isDuplicate: boolean;

  constructor(
    to: Packet["to"],
    seq: number,
    length: number,
    ack: number,
    sacks: readonly number[] | undefined,
    stamp: number,
    echo: number,
    isDuplicate: boolean,
  ) {
    this.stamp = stamp;
    this.echo = echo;
    this.isDuplicate = isDuplicate;
    this.to = to;
    this.seq = seq;
    this.length = length;
    this.ack = ack;
    this.sacks = sacks;
    this.size = length + HEADER_BYTES + (sacks === undefined ? 0 : 4 + 4 * sacks.length);
  }
}
