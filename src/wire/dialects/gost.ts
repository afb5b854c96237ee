/** "UDP-Tun" of gost (github.com/go-gost): SOCKS5 command 0xF3, then RFC 1928 UDP headers with RSV as length and FRAG 0xFF. */
import type { Dialect } from "./dialect.ts";
import { MAX_UDP_BYTES } from "./dialect.ts";
import { bySocksCommand, SocksDatagrams } from "./socks-datagram.ts";

const COMMAND_UDP_TUN = 0xf3;
const FRAG = 0xff;

export const gost: Dialect = {
  name: "gost",
  opening: bySocksCommand(COMMAND_UDP_TUN),
  addresses: "any",
  flows: 1,
  keepaliveMs: undefined,
  idleMs: undefined,
  clientIdleMs: undefined,
  // With a length of zero, gost takes whatever comes next on the connection as the data.
  codec: () => new SocksDatagrams({ mark: () => FRAG, minBytes: 1, maxBytes: () => MAX_UDP_BYTES }),
};
