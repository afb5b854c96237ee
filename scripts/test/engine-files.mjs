import { readdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** Files that need something that the engine lacks. */
export const LEFT_OUT = [
  // Sockets.
  ...[
    "unit/host/carriers/carrier-chain",
    "unit/host/carriers/happy-eyeballs",
    "unit/host/udp-paths/relay-address",
    "unit/host/udp-paths/udp-paths",
    "unit/host/io/udp-io-native",
    "unit/host/io/udp-io-plain",
  ],
  ...["unit/streams/byte-stream", "unit/streams/shadowsocks-stream", "unit/streams/tcp-relay"],
  ...["unit/streams/web-socket-stream"],
  // Ciphers.
  ...[
    "unit/core/shadowsocks/shadowsocks",
    "unit/core/shadowsocks/shadowsocks-server",
    "unit/core/shadowsocks/shadowsocks-2022-vectors",
  ],
  // Packages for Node.
  "unit/host/server/egress-counts",
  // Files, processes, and contexts of V8.
  ...[
    "unit/node/accept-errors",
    "unit/node/capi-scripts",
    "unit/node/direct-plain-udp",
    "unit/node/doctor",
    "unit/node/engine-files",
    "unit/node/fuzz-options",
    "unit/cli/documents",
    "unit/cli/keygen",
    "unit/cli/manual",
    "unit/cli/readiness",
    "unit/node/metrics",
    "unit/node/test-runs",
    "unit/layers",
    ...["command-line-and-file", "defaults", "listening", "refusals", "secrets"].map(
      (name) => `unit/cli/options/${name}`,
    ),
    "unit/node/masque-option",
    "unit/node/tun2socks-options",
    "unit/native-io",
  ],
  ...["unit/core/session/state-diagrams", "sim/agreement", "sim/session/session-fuzz", "sim/steady-state"],
].map(pathOf);

/** Files that take an interpreter minutes. */
export const LONG = [
  "unit/core/fuzz",
  "sim/counted-datagrams",
  "sim/handshake/handshake",
  "sim/lanes",
  "sim/tun2socks/packet-fuzz",
  "sim/session/hostile-peers",
  "sim/session/receipts",
  "unit/host/socks5/hostile-clients",
].map(pathOf);

/** @param {string} name */
function pathOf(name) {
  return `test/${name}.test.ts`;
}

/** The unit and simulation tests, by their paths from the root. */
export function testFiles() {
  return ["test/unit", "test/sim"].flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(".test.ts"))
      .map((name) => `${folder}/${name}`),
  );
}
