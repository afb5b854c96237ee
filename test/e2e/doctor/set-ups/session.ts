import type { SetUp } from "./set-up.ts";
import { asking, echoing, MEASURED, QUICK, shadowsocks, to } from "./set-up.ts";

/** Set-ups with faults in the session: its connections, targets behind the server, the path. */
export const SESSION: readonly SetUp[] = [
  // The session.
  {
    name: "nginx that allows one connection",
    fault: undefined,
    warnings: ["lanes-missing"],
    options: to("web", "--path-prefix", "/few", "--lanes", "3"),
  },
  { name: "a hop that passes nothing after the upgrade", fault: "heartbeat-lost", options: to("deaf") },
  {
    name: "a server that does not measure",
    fault: undefined,
    notes: ["no-measure"],
    options: to("unmeasured"),
  },
  {
    name: "a hop that ends connections after a second, while delay is measured",
    fault: "session-broken",
    options: to("cut", "--lanes", "1", "--age-budget-ms", "5000", "--test-seconds", "3"),
  },
  {
    name: "the same while a name server is asked that is silent",
    fault: "session-broken",
    options: (world) => [
      ...to("cut", "--lanes", "1")(world),
      ...["--test-dns", `127.0.0.1:${world.ports.mute}`, "--test-timeout-ms", "6000"],
    ],
  },
  {
    name: "the same while an echo service answers",
    fault: "session-broken",
    options: (world) => [
      ...to("cut", "--lanes", "1")(world),
      ...["--test-echo", `${world.internet.first}:${world.internet.echo}`],
    ],
  },
  {
    name: "a hop that ends connections but the first",
    fault: undefined,
    warnings: ["lane-broken"],
    options: to("cutting", "--lanes", "2", ...MEASURED),
  },
  // Targets.
  {
    name: "a target that the server denies",
    fault: "target-private",
    options: asking(({ server }) => `${server}:53`),
  },
  {
    name: "a UDP port that is closed",
    fault: "target-closed",
    options: asking(({ ports }) => `127.0.0.1:${ports.nothing}`),
  },
  {
    name: "a name server that is silent",
    fault: "dns-silent",
    options: asking(({ ports }) => `127.0.0.1:${ports.mute}`),
  },
  {
    name: "a name server that refuses",
    fault: "dns-error",
    options: asking(({ ports }) => `127.0.0.1:${ports.dns}`, "--test-name", "unknown.example"),
  },
  {
    name: "a network that the server has no route to",
    fault: "target-unreachable",
    options: asking(() => "192.0.2.5:53"),
  },
  {
    name: "an echo service that is silent",
    fault: "echo-silent",
    options: echoing(({ ports }) => `127.0.0.1:${ports.mute}`),
  },
  {
    name: "an echo service",
    fault: undefined,
    options: echoing(({ internet }) => `${internet.first}:${internet.echo}`),
  },
  {
    name: "fragments that are lost",
    fault: undefined,
    warnings: ["fragments-lost"],
    options: echoing(({ internet }) => `${internet.second}:${internet.noFragments}`),
  },
  {
    name: "one datagram in four lost",
    fault: undefined,
    warnings: ["datagrams-lost"],
    options: echoing(({ internet }) => `${internet.first}:${internet.lossy}`),
  },
  {
    name: "a STUN server",
    fault: undefined,
    data: { stun: { mapping: "endpoint-independent", filtering: "address-dependent" } },
    options: (world) => [...to("tunnel")(world), "--test-stun", world.internet.stun],
  },
  {
    name: "a server that lets everybody answer",
    fault: undefined,
    data: { stun: { mapping: "endpoint-independent", filtering: "endpoint-independent" } },
    options: (world) => [...to("outsiders")(world), "--test-stun", world.internet.stun],
  },
  {
    name: "a server that lets only the port answer that it sent to",
    fault: undefined,
    data: { stun: { mapping: "endpoint-independent", filtering: "address-and-port-dependent" } },
    options: (world) => [...to("strict")(world), "--test-stun", world.internet.stun],
  },
  {
    name: "a firewall that lets only the port answer that was sent to",
    fault: undefined,
    data: { stun: { mapping: "endpoint-independent", filtering: "address-and-port-dependent" } },
    options: (world) => [...to("outsiders")(world), "--test-stun", world.internet.stunFirewall],
  },
  {
    name: "a symmetric NAT",
    fault: undefined,
    warnings: ["nat-symmetric"],
    data: { stun: { mapping: "address-and-port-dependent", filtering: "address-and-port-dependent" } },
    options: (world) => [...to("outsiders")(world), "--test-stun", world.internet.stunSymmetric],
  },
  {
    name: "a STUN server that is silent",
    fault: undefined,
    warnings: ["stun-silent"],
    options: (world) => [...to("tunnel")(world), "--test-stun", `127.0.0.1:${world.ports.mute}`],
  },
  // The path.
  { name: "an MTU of 1,280 in the middle, without ICMP", fault: "path-mtu", options: to("narrow") },
  {
    name: "an MTU of 1,280 in the middle, with ICMP",
    fault: undefined,
    options: ({ ports, keyFile, narrowServer }) => [
      ...["--server", `${narrowServer}:${ports.tunnel}`, "--psk-file", keyFile, ...QUICK, ...MEASURED],
    ],
  },
  {
    name: "an MTU of 1,280 before a target, with ICMP",
    fault: undefined,
    options: echoing(({ narrowEcho }) => narrowEcho),
  },
  {
    name: "a hop that stalls",
    fault: undefined,
    warnings: ["delay-steps"],
    options: to("stalling", "--test-seconds", "2", "--test-timeout-ms", "5000"),
  },
  { name: "delay over direct TCP", fault: undefined, options: to("tunnel", ...MEASURED) },
  {
    name: "delay over shadowsocks that does not wait",
    fault: undefined,
    options: (world) => [...shadowsocks("ss", "inner")(world), ...MEASURED],
  },
  {
    name: "ss-server without --no-delay, which our end acknowledges at once",
    fault: undefined,
    options: (world) => [...shadowsocks("ssWaits", "inner")(world), ...MEASURED],
  },
  {
    name: "obfs-server, which always waits",
    fault: "delayed-acks",
    options: (world) => [
      ...shadowsocks("obfs", "inner", { plugin: "obfs-local;obfs=http" })(world),
      ...MEASURED,
    ],
  },
];
