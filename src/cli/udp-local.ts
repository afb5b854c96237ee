import type { UdpLocal } from "../node/handles.ts";
import { resolveUdpLocalOptions } from "../node/options/udp-local.ts";
import { startUdpLocal } from "../node/udp-local.ts";
import { UDP_LOCAL_LINE } from "./command-lines/udp-local.ts";
import { runProgram } from "./program.ts";

void runProgram({
  ...UDP_LOCAL_LINE,
  check: resolveUdpLocalOptions,
  start: startUdpLocal,
  diagnose: async (...walk) => (await import("../node/doctor/udp-local.ts")).diagnoseUdpLocal(...walk),
  // With a MASQUE proxy or another dialect's server, no session exists before the first datagram.
  hasSession: ({ sessions }, { masque, dialect }) =>
    sessions > 0 || masque !== undefined || dialect !== undefined,
  readyFields: ({ address }: UdpLocal) => ({
    socks5: address.socks5,
    forwards: address.forwards,
    server: address.server,
  }),
  readyText: ({ address }) =>
    [
      ...(address.socks5 === undefined ? [] : [`socks5 ${address.socks5}`]),
      ...address.forwards.map(({ listen, target }) => `forward ${listen} -> ${target}`),
      `server ${address.server}`,
    ].join(", "),
});
