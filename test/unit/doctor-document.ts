import { FINDINGS } from "../../src/host/doctor/findings.ts";

const STEPS = [
  ["Step", "What is done"],
  ["config", "options, configuration file, key file and its permissions"],
  ["limits", "descriptors, `net.core.rmem_max`"],
  ["device", "tun2socks: `/dev/net/tun`, the rights for it, who has the device, `--out-interface`"],
  ["routes", "tun2socks: routes that exist, loops, DNS and IPv6 that do not enter the device"],
  ["clock", "with `--test-clock URL`: this clock against a web server's"],
  ["name", "the addresses of the first hop"],
  ["tcp", "a connection to each address"],
  ["hops", "a connection through all proxies, TLS and WebSockets"],
  [
    "upgrade",
    "a session as udp-local has it; if there is none, what answers instead: a web server, SSH, SOCKS5, another tunnel",
  ],
  ["lanes", "the connections of `--lanes`"],
  ["round trip", "a heartbeat to udp-server and back"],
  ["dns", "with `--test-dns`, or a forward to port 53: a query through the tunnel"],
  ["stun", "with `--test-stun`: mapping and filtering of the NAT before udp-server (RFC 5780)"],
  [
    "echo",
    "with `--test-echo`: sizes, round trips and loss at a UDP echo service (RFC 862), and what ICMP says",
  ],
  ["full packets", "packets of 1,400 bytes, both ways; a smaller MTU that ICMP reports is no fault"],
  [
    "delay",
    "50 probes a second both ways for `--test-seconds`, each direction by itself; then groups that a relay which waits for ACKs holds back",
  ],
];

const HEAD = `# doctor

\`udp-local doctor\` takes the options and the configuration file of udp-local and walks the way to the server, step by step. It opens
connections of its own, listens nowhere, and may run beside udp-local. At the first fault it says what it is, why that is believed, and
what mends it:

    udp-local doctor --config udp-local.json
    udp-local doctor --server SERVER:3456 --psk-file psk --test-dns 9.9.9.9:53 --test-echo ECHO:7 --test-stun STUN:3478

The report can stand in an issue: it has no key and no password, and addresses and names of hosts are replaced by words, the same word for
the same address, unless \`--show-addresses\` is given. \`--json\` prints it for programs. The exit status is 0 if there is no fault, 1
if there is one, 2 for bad options. Warnings and notes do not change it. Of several ways (\`--way\`) one has to work; a fault of another
one is a warning.

${table(STEPS)}

While these steps use the session, its connections are watched. If the last one ends, the finding is \`session-broken\`, with how long the
session had been up, and what the step itself found stands behind it as a possible consequence. If one of several ends, that is the
warning \`lane-broken\`.

Whether a refused upgrade is because of the key or of a proxy on the way can be told, as a server answers 404 to another key, and 400
where the key is right and the request has been changed (PROTOCOL.md §2). A shadowsocks server that does not answer is asked for port 1 of
its own loopback: only one that takes the password closes that connection.

\`tun2socks doctor\`, with the options of tun2socks, examines this machine first: whether the TUN device can be made and its routes be
set, whether the way to the server would enter the device itself, and, where all traffic enters it, whether DNS and IPv6 do too. It makes a
device of another name for an instant, and changes nothing else. It may run beside tun2socks.

## Relays that wait

A relay with Nagle's algorithm on keeps a small write back until what it sent before is acknowledged, and its receiver acknowledges up to
40 ms later where it expects to answer. doctor provokes that in one direction at a time: a probe that is answered, one that is not, and
5 or 17 ms behind it another one. What waits until about 40 ms after the one before, whichever the gap, waits for an ACK: queues and busy
machines make delays that do not shrink as the gap grows. Towards the server it is a relay at the near end, such as ss-tunnel; from the
server one at the far end. Of a relay on this machine it names the program and whether it has \`--no-delay\`. Next to a
native end of ours nothing waits, as that acknowledges at once (docs/measure/where-the-time-goes.md).

## Findings

The codes stay. This page is written by \`npx vitest run --project unit test/unit/node/doctor.test.ts -u\` from the table in
\`src/host/doctor/findings.ts\`; words in capitals stand for values of the finding.

`;

/** A table as the formatter of this repository writes it. */
function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0].map((_, column) => Math.max(3, ...rows.map((row) => row[column].length)));
  const line = (row: readonly string[]) =>
    `| ${row.map((cell, column) => cell.padEnd(widths[column])).join(" | ")} |`;
  return [line(rows[0]), line(widths.map((width) => "-".repeat(width))), ...rows.slice(1).map(line)].join(
    "\n",
  );
}

/** The text of docs/operate/doctor.md. */
export function doctorDocument(): string {
  const rows = Object.entries(FINDINGS).map(([code, { severity, meaning, mend }]) => [
    `\`${code}\``,
    severity,
    meaning,
    mend.replace(/\{(\w+)\}/g, (_, name: string) => name.toUpperCase()).replaceAll("|", "\\|"),
  ]);
  return `${HEAD}${table([["Code", "Kind", "Meaning", "What mends it"], ...rows])}\n`;
}
