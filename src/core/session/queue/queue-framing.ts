import { datagramHeaderLength, writeDatagramHeader } from "../../../wire/capsule.ts";

/** How the datagrams of a queue are written. */
export interface QueueFraming {
  /** Bytes before an entry of `length` bytes. @param context  the number that the entry was pushed with */
  headerLength(context: number, length: number): number;
  /** @returns its end offset */
  writeHeader(to: Uint8Array, at: number, context: number, length: number): number;
  /** How many bytes of the entry are UDP payload. */
  payloadLength(context: number, length: number): number;
}

/** DATAGRAM capsules. */
export const CAPSULES: QueueFraming = {
  headerLength: datagramHeaderLength,
  writeHeader: writeDatagramHeader,
  payloadLength: (_, length) => length,
};
