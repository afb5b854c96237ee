/**
 * "UDP in TCP" of hev-socks5-server and hev-socks5-tunnel (github.com/heiher): SOCKS5 command 5, then datagrams on that connection, whose
 * third byte is the length of the header before the data. Contrary to their README, the programs send only the length of the data.
 */
import type { Dialect } from "./dialect.ts";
import { bySocksCommand, SocksDatagrams } from "./socks-datagram.ts";

const COMMAND_FORWARD_UDP = 5;
/** UDP_BUF_SIZE, which holds the address and the data: 1,493 bytes with IPv4, 1,481 with IPv6. */
const BUFFER_BYTES = 1_500;
const PREFIX_BYTES = 3;
/** The programs' default. */
const IDLE_MS = 60_000;

export const hev: Dialect = {
  name: "hev",
  opening: bySocksCommand(COMMAND_FORWARD_UDP),
  addresses: "any",
  flows: 1,
  keepaliveMs: undefined,
  idleMs: IDLE_MS,
  clientIdleMs: IDLE_MS,
  codec: () =>
    new SocksDatagrams({
      mark: (length) => PREFIX_BYTES + length,
      // After an empty datagram, or one that exceeds the buffer, the program's connection stays open but no longer works.
      minBytes: 1,
      maxBytes: (length) => BUFFER_BYTES - length,
    }),
};
