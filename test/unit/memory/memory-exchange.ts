import type { ResolvedUdpLocalOptions, ResolvedUdpServerOptions } from "../../../src/host/index.ts";
import { silentLogger, UdpLocalHost, UdpServerHost } from "../../../src/host/index.ts";
import type { OnDatagrams } from "../../../src/host/io/udp-io.ts";
import { formatAddress } from "../../../src/wire/socket-address.ts";
import { MemoryWorld, remoteOf } from "./memory-system.ts";

/** Calls {@link step} until there is a result. */
export interface Exchange {
  step(): void;
  readonly result: { value: string | undefined };
}

const COMMON = {
  psk: Uint8Array.from({ length: 16 }, (_, i) => i),
  ageBudgetMs: 100,
  queueBytes: 1_048_576,
  heartbeatMs: 5_000,
  io: undefined,
  latency: "balanced",
  ipv6Only: false,
  workers: 1,
  tap: undefined,
  tapFiles: 2,
  tapFileBytes: 104_857_600,
  tapPayloadBytes: 65_535,
  tapFilter: [],
  tapInterfaces: "one",
} as const;

export const SERVER: ResolvedUdpServerOptions = {
  ...COMMON,
  listen: ["127.0.0.1:3456"],
  ssRelay: "off",
  insecureOpenRelay: false,
  allow: ["192.0.2.0/24"],
  deny: [],
  filtering: "address-dependent",
  lingerS: 60,
  egress: "sockets",
  publicAddress: [],
  wsPath: undefined,
  dialects: [],
  dialectTarget: undefined,
  decoy: undefined,
  maxTunnels: 8,
  maxHalfOpen: 8,
  maxSessions: 8,
  maxLingering: 8,
  maxAssociations: 64,
  maxAssociationsPerSession: 64,
  maxContextsPerSession: 64,
  handshakeTimeoutMs: 5_000,
  idleTimeoutS: 600,
};

export const LOCAL: ResolvedUdpLocalOptions = {
  ...COMMON,
  listen: false,
  ways: [{ server: "127.0.0.1:3456", via: [] }],
  pathPrefix: undefined,
  masque: undefined,
  dialect: undefined,
  forwards: [{ listen: "127.0.0.1:5000", target: "192.0.2.1:53" }],
  tcpVia: [],
  outInterface: undefined,
  outMark: 0,
  socksAuth: undefined,
  socksAdvertise: [],
  socksUdpPorts: undefined,
  socksUdpStrict: false,
  latencyRules: [],
  lanes: 1,
  maxAssociations: 64,
  maxContexts: 64,
  idleTimeoutS: 60,
  activeIdleTimeoutS: 300,
};

/** A datagram of an application through a forward, a client and a server to a target, which answers in capitals. */
export function exchange(): Exchange {
  const world = new MemoryWorld();
  const result: Exchange["result"] = { value: undefined };
  const run = async () => {
    const server = new UdpServerHost(SERVER, silentLogger, world.system);
    await server.listen();
    const local = new UdpLocalHost(LOCAL, silentLogger, world.system);
    await local.listen();
    await new Promise<void>((done) => local.events.on("session-up", () => done()));
    let asked = "";
    const open = (host: string, port: number, onText: (text: string, from: Uint8Array) => void) => {
      const onDatagrams: OnDatagrams = (received) =>
        onText(String.fromCharCode(...received.data), received.addresses);
      const onBindError = () => {};
      return world.udp.open({ family: 4, host, port, reusePort: false, onDatagrams, onBindError });
    };
    const send = (socket: ReturnType<typeof open>, text: string, to: ReturnType<typeof remoteOf>) => {
      const bytes = Uint8Array.from(text, (character) => character.charCodeAt(0));
      socket.send(undefined, bytes, 0, bytes.length, to);
    };
    const target = open("192.0.2.1", 53, (text, from) => {
      asked = text;
      const [a, b, c, d] = from.subarray(1);
      send(target, text.toUpperCase(), remoteOf(`${a}.${b}.${c}.${d}`, (from[5] << 8) | from[6]));
    });
    const application = open("127.0.0.1", 6000, (text, from) => {
      const { sessions } = server.stats();
      const who = formatAddress(from);
      result.value = `192.0.2.1:53 got ${asked}, ${who} answered ${text}, ${sessions} session`;
    });
    send(application, "hi", remoteOf("127.0.0.1", 5000));
  };
  run().catch((error) => {
    result.value = `failed: ${error}`;
  });
  return { step: () => world.step(), result };
}
