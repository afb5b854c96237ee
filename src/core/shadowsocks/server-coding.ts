import type { AddressBytes } from "../../wire/socket-address.ts";
import type { StreamCoding } from "../stream-coding.ts";

/** The server's end of a stream. */
export interface ServerCoding extends StreamCoding {
  /** The target that the client requests, once known. */
  readonly target: AddressBytes | undefined;
}

/** Remembers the salt of a client that has proved its key. @returns false if it was used before, or cannot be remembered */
export type AdmitSalt = (salt: Uint8Array) => boolean;
