import { execFileSync } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { ProgramName } from "../../support/hosts.ts";
import { programFile } from "../../support/hosts.ts";
import type { Host, TwoHosts } from "../network/two-hosts.ts";
import { makeKeyFile } from "../programs/underpass.ts";
import { startDns } from "../targets/targets.ts";
import type { Internet } from "./internet.ts";
import { makeInternet, makeRouter, NARROW_CLIENT, NARROW_SERVER } from "./internet.ts";

export const SS_METHOD = "chacha20-ietf-poly1305";
export const SS_PASSWORD = "not a secret";
const CIPHER = ["-k", SS_PASSWORD, "-m", SS_METHOD];
export const SS_2022 = "2022-blake3-aes-128-gcm";
export const SS_2022_KEY = Buffer.alloc(16, 7).toString("base64");
/** An unused IPv6 address of the server's network. */
export const DEAD_IPV6 = "fd77::dead";
/** A TUN device of the client that another program holds, and a network that is routed elsewhere. */
export const BUSY_DEVICE = "busy0";
export const TAKEN_NETWORK = "10.99.8.0/24";
/** An address to which the server has no route. */
const UNREACHABLE_NETWORK = "192.0.2.0/24";
/** A port of the server whose packets are dropped. */
export const DROPPED_PORT = 9;

const UPGRADE = `proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection "upgrade";`;

/** Everything that set-ups use, on the two hosts. Ports belong to the server's address unless stated otherwise. */
export interface World {
  readonly hosts: TwoHosts;
  readonly keyFile: string;
  readonly otherKeyFile: string;
  readonly expiredKeyFile: string;
  readonly aliceKeyFile: string;
  readonly caFile: string;
  readonly server: string;
  /** Its address behind a router whose next link has an MTU of 1,280. */
  readonly narrowServer: string;
  /** An echo behind the same router. */
  readonly narrowEcho: string;
  readonly ports: Readonly<Record<PortName, number>>;
  readonly internet: Internet;
}

/** Hops of relay.mjs, by their upstream port. */
const FAULTY_RELAYS = {
  ...({ deaf: "inner", unmeasured: "inner", stalling: "inner", cutting: "inner" } as const),
  ...({ altering: "ss", alteringObfs: "obfs" } as const),
};
type RelayName = keyof typeof FAULTY_RELAYS;
const RELAY_NAMES = Object.keys(FAULTY_RELAYS) as readonly RelayName[];

const PORT_NAMES = [
  ...([
    "tunnel",
    "inner",
    "open",
    "keys",
    "limited",
    "narrow",
    "udpgw",
    "ss",
    "ssWaits",
    "obfs",
    "ss2022",
  ] as const),
  ...(["web", "secure", "ssh", "silent", "closing", "nothing", "tlsOnly"] as const),
  ...(["httpProxy", "authProxy", "socks", "authSocks", "dns", "mute"] as const),
  ...(["obfsTls", "wantsCertificate", "wantsOldCertificate", "nginxWantsCertificate"] as const),
  ...(["noName", "oneWay", "cut", "outsiders", "strict"] as const),
  ...RELAY_NAMES,
] as const;

export type PortName = (typeof PORT_NAMES)[number];

const TARGETS = [
  "--allow",
  "127.0.0.1/32",
  "--allow",
  "192.0.2.0/24",
  "--allow",
  "198.51.100.0/24",
  "--allow",
  `${NARROW_CLIENT}/32`,
];
const RELAY = fileURLToPath(new URL("relay.mjs", import.meta.url));

/** Starts all programs. */
export async function makeWorld(hosts: TwoHosts): Promise<World> {
  const { server, client, directory } = hosts;
  const ports = Object.fromEntries(PORT_NAMES.map((name) => [name, server.port()])) as Record<
    PortName,
    number
  >;
  const keyFile = makeKeyFile(hosts);
  const write = (name: string, text: string, mode = 0o600) => {
    const path = join(directory, name);
    writeFileSync(path, text, { mode });
    return path;
  };
  const otherKeyFile = write("other-psk", "the key of another server\n");
  const expiredKeyFile = write("expired-psk", "the key of somebody who has left\n");
  const aliceKeyFile = write("alice-psk", "the key of somebody who stays\n");
  const rows = {
    alice: { key: "the key of somebody who stays" },
    bob: { key: "the key of somebody who has left", expires: "2020-01-01" },
  };
  const keysFile = write("keys.json", JSON.stringify(rows));
  const { ipv4 } = server;
  const at = (name: PortName) => `${ipv4}:${ports[name]}`;
  const caFile = makeCertificates(directory);
  const nginx = write("nginx.conf", nginxConfig(directory, ipv4, ports));
  const proxies = {
    httpProxy: "ConnectPort 443",
    authProxy: "BasicAuth user password",
  };
  await server.run(["nft", `add rule inet fence arriving tcp dport ${DROPPED_PORT} drop`]);
  // A link with an MTU of 1,280 on the way that nothing reports.
  await server.run(["nft", `add rule inet fence arriving tcp dport ${ports.narrow} meta length > 1280 drop`]);
  await client.run(["nft", `add rule inet fence arriving tcp sport ${ports.narrow} meta length > 1280 drop`]);
  await server.run(["ip", "route", "add", "unreachable", UNREACHABLE_NETWORK]);
  await client.run(["ip", "route", "add", TAKEN_NETWORK, "dev", "veth0"]);
  await client.run(["ip", "-6", "route", "add", "default", "via", server.ipv6, "dev", "veth0"]);
  client.spawn(["socat", `TUN:10.99.9.1/30,tun-name=${BUSY_DEVICE},iff-up`, "SYSTEM:cat >/dev/null"]);
  await client.run(["sh", "-c", `until ip link show ${BUSY_DEVICE} >/dev/null 2>&1; do sleep 0.02; done`]);
  write(
    "hosts",
    "127.0.0.1 localhost\n10.77.0.2 good.test tunnel.test\n10.77.0.2 dual.test\nfd77::dead dual.test\n",
    0o644,
  );
  const ss = (port: number, ...rest: readonly string[]) =>
    listening(server, ["ss-server", "-s", ipv4, "-p", `${port}`, ...CIPHER, ...rest], ipv4, port);
  const narrowEcho = await makeRouter(hosts);
  const starts = [
    underpass(server, "udp-server", [
      "--listen",
      at("tunnel"),
      "--listen",
      at("narrow"),
      "--listen",
      `${NARROW_SERVER}:${ports.tunnel}`,
      "--listen",
      `127.0.0.1:${ports.inner}`,
      "--psk-file",
      keyFile,
      "--ws-path",
      "/ws",
      ...TARGETS,
    ]),
    underpass(server, "udp-server", ["--listen", at("keys"), "--keys", keysFile, ...TARGETS]),
    underpass(server, "udp-server", [
      "--listen",
      at("limited"),
      "--psk-file",
      keyFile,
      "--max-tunnels",
      "1",
      "--workers",
      "1",
      ...TARGETS,
    ]),
    underpass(server, "udp-server", ["--listen", at("open"), "--insecure-open-relay", ...TARGETS]),
    ...(
      [
        ["outsiders", "endpoint-independent"],
        ["strict", "address-and-port-dependent"],
      ] as const
    ).map(([name, filtering]) =>
      underpass(server, "udp-server", [
        ...["--listen", at(name), "--psk-file", keyFile, "--workers", "1", "--filtering", filtering],
        ...TARGETS,
      ]),
    ),
    underpass(server, "udp-server", [
      "--listen",
      `udpgw://${at("udpgw")}`,
      "--insecure-open-relay",
      ...TARGETS,
    ]),
    underpass(server, "udp-server", [
      "--listen",
      `ss://${SS_2022}:${encodeURIComponent(SS_2022_KEY)}@${at("ss2022")}`,
      "--psk-file",
      keyFile,
      ...TARGETS,
    ]),
    ss(ports.ss, "--no-delay"),
    ss(ports.ssWaits),
    ss(ports.obfs, "--no-delay", "--plugin", "obfs-server", "--plugin-opts", "obfs=http"),
    ss(ports.obfsTls, "--no-delay", "--plugin", "obfs-server", "--plugin-opts", "obfs=tls"),
    listening(server, ["nginx", "-c", nginx], ipv4, ports.web),
    listening(
      server,
      socat(
        ipv4,
        ports.ssh,
        `SYSTEM:cat ${write("banner", "SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n")} && sleep 5`,
      ),
      ipv4,
      ports.ssh,
    ),
    listening(server, socat(ipv4, ports.silent, "SYSTEM:cat >/dev/null"), ipv4, ports.silent),
    listening(server, socat(ipv4, ports.closing, "SYSTEM:true"), ipv4, ports.closing),
    ...(
      [
        ["tlsOnly", "verify=0"],
        ["wantsCertificate", `verify=1,cafile=${caFile}`],
        ["wantsOldCertificate", `verify=1,cafile=${caFile},openssl-max-proto-version=TLS1.2`],
      ] as const
    ).map(([name, options]) =>
      listening(
        server,
        [
          "socat",
          `OPENSSL-LISTEN:${ports[name]},bind=${ipv4},fork,reuseaddr,cert=${join(directory, "tunnel.pem")},key=${join(directory, "tunnel.key")},${options}`,
          "SYSTEM:cat >/dev/null",
        ],
        ipv4,
        ports[name],
      ),
    ),
    // A hop that returns nothing, and one that ends each connection after a second.
    listening(
      server,
      ["socat", "-u", `TCP4-LISTEN:${ports.oneWay},bind=127.0.0.1,fork`, `TCP4:127.0.0.1:${ports.inner}`],
      "127.0.0.1",
      ports.oneWay,
    ),
    listening(
      server,
      socat(ipv4, ports.cut, `EXEC:timeout 1 socat STDIO TCP4\\:127.0.0.1\\:${ports.inner}`),
      ipv4,
      ports.cut,
    ),
    startRelays(server, ports),
    ...(["httpProxy", "authProxy"] as const).map((name) =>
      listening(
        server,
        [
          "tinyproxy",
          "-d",
          "-c",
          write(`${name}.conf`, `Port ${ports[name]}\nListen ${ipv4}\nUser root\n${proxies[name]}\n`),
        ],
        ipv4,
        ports[name],
      ),
    ),
    listening(server, ["microsocks", "-i", ipv4, "-p", `${ports.socks}`], ipv4, ports.socks),
    listening(
      server,
      ["microsocks", "-i", ipv4, "-p", `${ports.authSocks}`, "-u", "user", "-P", "password"],
      ipv4,
      ports.authSocks,
    ),
    startDns(server),
    startClientDns(client),
  ] as const;
  const dns = await Promise.all(starts).then((done) => done.at(-2) as number);
  ports.dns = dns;
  server.spawn(["socat", "-u", `UDP4-RECVFROM:${ports.mute},bind=127.0.0.1,fork`, "SYSTEM:cat >/dev/null"]);
  const internet = await makeInternet(server);
  await occupy(client, at("limited"), keyFile);
  return {
    hosts,
    keyFile,
    otherKeyFile,
    expiredKeyFile,
    aliceKeyFile,
    caFile,
    server: ipv4,
    narrowServer: NARROW_SERVER,
    narrowEcho,
    ports,
    internet,
  };
}

/** Occupies the only session of a server. */
async function occupy(client: Host, server: string, keyFile: string): Promise<void> {
  const argv = [
    process.execPath,
    programFile("udp-local"),
    "--log-format",
    "json",
    "--listen",
    "127.0.0.1:0",
  ];
  await client.spawn([...argv, "--server", server, "--psk-file", keyFile]).waitForLine(/"session up"/);
}

/** Starts ss-tunnel on the client, to a port of the server's shadowsocks and on to its own udp-server. @returns its port */
export async function startSsTunnel(
  { hosts: { client }, server, ports }: World,
  remote: PortName,
  ...rest: readonly string[]
): Promise<number> {
  const port = client.port();
  const argv = ["ss-tunnel", "-s", server, "-p", `${ports[remote]}`, "-l", `${port}`, ...CIPHER];
  await listening(client, [...argv, "-L", `127.0.0.1:${ports.inner}`, ...rest], "127.0.0.1", port);
  return port;
}

function socat(address: string, port: number, what: string): string[] {
  return ["socat", `TCP4-LISTEN:${port},bind=${address},fork,reuseaddr`, what];
}

async function listening(host: Host, argv: readonly string[], address: string, port: number): Promise<void> {
  host.spawn(argv);
  await host.waitForTcp(address, port);
}

export async function underpass(host: Host, name: ProgramName, options: readonly string[]): Promise<void> {
  const argv = [process.execPath, programFile(name), "--log-format", "json", ...options];
  await host.spawn(argv).waitForLine(new RegExp(`"ready":"${name}"`));
}

async function startRelays(server: Host, ports: Readonly<Record<PortName, number>>): Promise<void> {
  const hops = RELAY_NAMES.map((name) => {
    const upstream = FAULTY_RELAYS[name];
    const host = upstream === "inner" ? "127.0.0.1" : server.ipv4;
    return [name.replace("Obfs", ""), ports[name], host, ports[upstream]].join(" ");
  });
  const relay = server.spawn([process.execPath, RELAY, server.ipv4, ...hops]);
  await relay.waitForLine(/^ready$/);
}

/** The client's resolver, which knows no names. */
async function startClientDns(client: Host): Promise<void> {
  await startDns(client, "127.0.0.1", 53, ["--local=/test/"]);
}

/** Creates an authority and a certificate of it for tunnel.test. @returns the file of the authority's certificate */
function makeCertificates(directory: string): string {
  const path = (name: string) => join(directory, name);
  const openssl = (...argv: string[]) => execFileSync("openssl", argv, { cwd: directory, stdio: "pipe" });
  openssl(
    "req",
    "-x509",
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    "-nodes",
    "-days",
    "30",
    "-keyout",
    "ca.key",
    "-out",
    "ca.pem",
    "-subj",
    "/CN=test authority",
  );
  openssl(
    "req",
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    "-nodes",
    "-keyout",
    "tunnel.key",
    "-out",
    "tunnel.csr",
    "-subj",
    "/CN=tunnel.test",
  );
  writeFileSync(path("names"), "subjectAltName=DNS:tunnel.test\n");
  openssl(
    "x509",
    "-req",
    "-in",
    "tunnel.csr",
    "-CA",
    "ca.pem",
    "-CAkey",
    "ca.key",
    "-CAcreateserial",
    "-days",
    "30",
    "-extfile",
    "names",
    "-out",
    "tunnel.pem",
  );
  return path("ca.pem");
}

function nginxConfig(directory: string, ip: string, ports: Record<PortName, number>): string {
  const upstream = `http://127.0.0.1:${ports.inner}`;
  const locations = `
    location /good/ { proxy_pass ${upstream}/; ${UPGRADE} }
    location /ws { proxy_pass ${upstream}; ${UPGRADE} }
    location /rewritten/ { rewrite ^ /other/place break; proxy_pass ${upstream}; ${UPGRADE} }
    location /no-upgrade/ { proxy_pass ${upstream}/; }
    location /dead/ { proxy_pass http://127.0.0.1:${ports.nothing}/; ${UPGRADE} }
    location /moved/ { return 301 https://elsewhere.test/; }
    location /forbidden/ { return 403; }
    location /page/ { return 200 "a page"; }
    location /stripped/ { proxy_pass http://${ip}:${ports.open}/; ${UPGRADE} proxy_set_header Underpass ""; }
    location /few/ { limit_conn one 1; proxy_pass ${upstream}/; ${UPGRADE} }
    location /repeated/ { proxy_pass http://twice/; ${UPGRADE} proxy_read_timeout 1s; }`;
  const certificate = `ssl_certificate ${directory}/tunnel.pem; ssl_certificate_key ${directory}/tunnel.key;`;
  return `daemon off;
master_process off;
pid ${directory}/nginx.pid;
error_log stderr crit;
events {}
http {
  access_log off;
  server { listen ${ip}:${ports.web}; ${locations} }
  limit_conn_zone $binary_remote_addr zone=one:32k;
  # What the first gets and does not answer in time, the second gets again.
  upstream twice {
    server 127.0.0.1:${ports.oneWay} max_fails=0;
    server 127.0.0.1:${ports.inner} backup;
  }
  server { listen ${ip}:${ports.secure} ssl; ${certificate} ${locations} }
  server {
    listen ${ip}:${ports.nginxWantsCertificate} ssl;
    ${certificate}
    ssl_client_certificate ${directory}/ca.pem;
    ssl_verify_client on;
    ${locations}
  }
  server { listen ${ip}:${ports.noName} ssl; ssl_reject_handshake on; }
}
`;
}

/** Doctor's report. */
export interface Report {
  readonly exitStatus: number | null;
  readonly isHealthy: boolean;
  readonly findings: readonly { readonly code: string; readonly severity: string; readonly mend: string }[];
  readonly steps: readonly { readonly name: string; readonly measured: string; readonly data?: object }[];
  readonly text: string;
}

/** The environment in which doctor runs. */
export interface Surroundings {
  /** A command line that runs the command after it. */
  readonly wrap?: readonly string[];
  readonly resolver?: string;
  readonly rmemMax?: number;
}

/** It has its own resolver, host names and limit of receive buffers. */
export async function runDoctor(
  { hosts: { client, directory } }: World,
  program: ProgramName,
  options: readonly string[],
  { wrap = [], resolver = "127.0.0.1", rmemMax = 4_194_304 }: Surroundings = {},
): Promise<Report> {
  // Only for this run: others read theirs at the same time.
  const own = mkdtempSync(join(directory, "run-"));
  writeFileSync(join(own, "resolv.conf"), `nameserver ${resolver}\noptions timeout:1 attempts:1\n`);
  writeFileSync(join(own, "rmem_max"), `${rmemMax}\n`);
  const mounts = [
    [`${directory}/hosts`, "/etc/hosts"],
    [`${own}/resolv.conf`, "/etc/resolv.conf"],
    [`${own}/rmem_max`, "/proc/sys/net/core/rmem_max"],
  ].map(([from, at]) => `mount --bind ${from} ${at}`);
  const argv = [
    ...["unshare", "-m", "sh", "-c", `${mounts.join(" && ")} && exec "$@"`, "sh"],
    ...wrap,
    process.execPath,
    programFile(program),
    "doctor",
    "--json",
    ...options,
  ];
  const run = client.spawn(argv);
  try {
    const exitStatus = await run.exit(40_000);
    const line = run.lines.find(({ text }) => text.startsWith("{"))?.text;
    if (line === undefined) throw new Error(`no report\n${run.transcript()}`);
    return { ...JSON.parse(line), exitStatus, text: line };
  } finally {
    await run.kill();
    client.programs.splice(client.programs.indexOf(run), 1);
  }
}
