/** tcp2udp and udp2tcp of github.com/mullvad/udp-over-tcp: `length 2 | payload` in both directions, without a greeting. */
import type { Dialect } from "./dialect.ts";
import { MAX_UDP_BYTES } from "./dialect.ts";
import { LengthPrefixed } from "./length-prefixed.ts";

export const mullvad: Dialect = {
  name: "mullvad",
  opening: { kind: "listener" },
  addresses: "none",
  flows: 1,
  keepaliveMs: undefined,
  idleMs: undefined,
  clientIdleMs: undefined,
  codec: (role) =>
    new LengthPrefixed({
      hello: new Uint8Array(0),
      isClient: role === "client",
      minBytes: 0,
      firstMaxBytes: MAX_UDP_BYTES,
    }),
};
