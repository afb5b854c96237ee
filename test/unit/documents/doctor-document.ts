import { FINDINGS } from "../../../src/host/doctor/findings.ts";

const STEPS = [
  ["Step", "What it checks"],
  ["config", "options, configuration file, key file and its permissions"],
  ["limits", "descriptors, `net.core.rmem_max`"],
  ["device", "tun2socks: `/dev/net/tun`, the permission to use it, who holds the device, `--out-interface`"],
  ["routes", "tun2socks: routes that exist, loops, DNS and IPv6 that do not enter the device"],
  ["clock", "with `--test-clock URL`: this machine's clock against a web server's"],
  ["name", "the addresses of the first hop"],
  ["tcp", "a connection to each address"],
  ["hops", "a connection through all proxies, TLS and WebSockets"],
  [
    "upgrade",
    "a session like udp-local's; if none opens, what answers instead: a web server, SSH, SOCKS5, another tunnel",
  ],
  ["lanes", "the connections of `--lanes`"],
  ["round trip", "a heartbeat to udp-server and back"],
  ["dns", "with `--test-dns`, or a forward to port 53: a query through the tunnel"],
  ["stun", "with `--test-stun`: mapping and filtering of the NAT in front of udp-server (RFC 5780)"],
  [
    "echo",
    "with `--test-echo`: sizes, round trips and loss at a UDP echo service (RFC 862), and what ICMP reports",
  ],
  ["full packets", "packets of 1,400 bytes, both ways; a smaller MTU that ICMP reports is not a fault"],
  [
    "delay",
    "50 probes a second both ways for `--test-seconds`, each direction separately; then groups of probes that a relay waiting for ACKs holds back",
  ],
];

const HEAD = `# doctor

\`udp-local doctor\` takes the options and the configuration file of udp-local and checks the way to the server, step by step. It opens
connections of its own, listens nowhere, and may run beside udp-local. It stops at the first fault, and reports what the fault is, the
evidence for it, and the fix. The log of udp-local names it when there has been no session for three seconds after a failure.

    udp-local doctor --config udp-local.json
    udp-local doctor --server SERVER:3456 --psk-file psk --test-dns 9.9.9.9:53 --test-echo ECHO:7 --test-stun STUN:3478

You can paste the report into an issue. It contains no keys or passwords, and words replace the addresses and names of hosts, the same word
for the same address, unless you give \`--show-addresses\`. \`--json\` prints the report for programs. The exit status is 0 without a fault, 1
with one, and 2 for bad options. Warnings and notes do not change it. If there are several ways (\`--way\`), one has to work; a fault of
another is a warning.

${table(STEPS)}

While the steps use the session, doctor watches its connections. If the last one ends, the finding is \`session-broken\`. It includes how long
the session had been up and, as a possible consequence, what the step itself found. If one of several connections ends, the finding is the
warning \`lane-broken\`.

If the upgrade is refused, doctor can distinguish a wrong key from a proxy that interferes: a server answers 404 to another key, and 400 if the
key is right but the request was changed (PROTOCOL.md §2). If a shadowsocks server does not answer, doctor asks it for port 1 of its own
loopback: only a server that accepts the password closes that connection.

\`tun2socks doctor\`, with the options of tun2socks, examines this machine first: whether it can make the TUN device and set its routes,
whether the way to the server would enter the device itself, and, if all traffic enters the device, whether DNS and IPv6 do too. It makes a
device with another name for an instant, and changes nothing else. It may run beside tun2socks.

## Relays that wait

A relay with Nagle's algorithm enabled holds back a small write until its previous write is acknowledged, and a receiver that expects to
answer acknowledges up to 40 ms later. doctor provokes this in one direction at a time. It sends a probe that is answered, one that is not, and
a third 5 or 17 ms later. If the third arrives about 40 ms after the second, whatever the gap, it waited for an ACK: delays from queues and
busy machines do not shrink as the gap grows. Towards the server, the relay that waits is at the near end, such as ss-tunnel; from the
server, it is at the far end. If the relay runs on this machine, doctor names the program and reports whether it has \`--no-delay\`. Next
to an Underpass end with native I/O nothing waits, because that end acknowledges at once (docs/measure/where-the-time-goes.md).

## Findings

Codes never change their meaning. \`npx vitest run --project unit test/unit/node/doctor.test.ts -u\` generates this page from the table in
\`src/host/doctor/findings.ts\`. Words in capitals stand for values of the finding.

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
  return `${HEAD}${table([["Code", "Kind", "Meaning", "Fix"], ...rows])}\n`;
}
