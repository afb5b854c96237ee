/** udptunnel of github.com/rfc1036: a greeting of 32 bytes, then `length 2 | payload` in both directions. */
import type { Dialect } from "./dialect.ts";
import { beginsLike, LengthPrefixed } from "./length-prefixed.ts";

const GREETING = Uint8Array.from([
  ...[0x75, 0x64, 0x70, 0x74, 0x75, 0x6e, 0x6e, 0x65, 0x6c, 0x20, 0x62, 0x79, 0x20, 0x6d, 0x64, 0x2e],
  ...[0x00, 0x00, 0x00, 0x01, 0x03, 0x06, 0x10, 0x15, 0x21, 0x28, 0x36, 0x45, 0x55, 0x66, 0x78, 0x91],
]);
/** The server's buffer of 65,536 bytes still holds the greeting while it reads the first frame. A larger frame makes it reset the connection. */
const FIRST_MAX_BYTES = 65_536 - 32 - 2;

export const udptunnel: Dialect = {
  name: "udptunnel",
  opening: {
    kind: "first-bytes",
    sniff: (bytes, length) => {
      if (!beginsLike(bytes, 0, length, GREETING)) return "no";
      return length < GREETING.length ? "more" : "yes";
    },
  },
  addresses: "none",
  flows: 1,
  keepaliveMs: undefined,
  idleMs: undefined,
  clientIdleMs: undefined,
  // The program never sends an empty frame, but turns one that it receives into an empty datagram.
  codec: (role) =>
    new LengthPrefixed({
      hello: GREETING,
      isClient: role === "client",
      minBytes: 0,
      firstMaxBytes: FIRST_MAX_BYTES,
    }),
};
