import type { AddressBytes } from "../../wire/socket-address.ts";
import type { StreamCoding } from "../stream-coding.ts";

/** The server's end of a stream. */
export interface ServerCoding extends StreamCoding {
  /** What the client asks for, once that is known. */
  readonly target: AddressBytes | undefined;
}

/** Remembers the salt of a client that has proved its key. @returns false if it came before, or cannot be remembered */
export type AdmitSalt = (salt: Uint8Array) => boolean;
