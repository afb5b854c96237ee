import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import type { ProgramName } from "../support/hosts.ts";
import { programCommand } from "../support/hosts.ts";
import { describeOnTwoHosts } from "./network/requirements.ts";
import type { TwoHosts } from "./network/two-hosts.ts";
import { useTwoHosts } from "./network/use-two-hosts.ts";
import { Service } from "./programs/chain.ts";
import { startUdpEcho } from "./targets/targets.ts";

const CLIENT = fileURLToPath(new URL("peers/socks5/socks5-lan.py", import.meta.url));
/** An address of the gateway to which the clients have no route, because dante's client connects to neighbours directly. */
const TARGET = "198.51.100.77";
/** The first of the gateway's UDP ports for clients: below those that the system assigns, and free in our own namespace. */
const UDP = 20_000;
/** A second address of the clients' host. */
const SECOND = "10.77.0.12";
/** The address at which clients reach the gateway through a NAT, then the only one at which its UDP ports are open. */
const OUTSIDE = "203.0.113.9";

describeOnTwoHosts("a SOCKS5 server for other hosts of its LAN", () => {
  let hosts: TwoHosts;
  useTwoHosts((made) => {
    hosts = made;
  });

  let echo = 0;
  let socks = 0;

  /** The LAN: udp-local runs on the gateway, whose firewall accepts only the agreed UDP ports. */
  async function startLan(options: readonly string[], ports: number): Promise<void> {
    const { client: gateway, server: lan } = hosts;
    await lan.run(["nft", "flush", "chain", "inet", "fence", "arriving"]);
    const open = `${UDP}-${UDP + ports - 1}`;
    const firewall = `
      nft flush chain inet fence arriving
      nft add rule inet fence arriving iifname veth0 meta l4proto udp udp dport != ${open} counter name lost drop`;
    await gateway.run(["sh", "-ec", firewall]);
    await gateway.run(["ip", "addr", "replace", `${TARGET}/32`, "dev", "lo"]);
    await lan.run(["ip", "addr", "replace", `${SECOND}/24`, "dev", "veth0"]);
    echo = await startUdpEcho(gateway, { IPv4: TARGET, IPv6: "::1" });
    socks = gateway.port();
    const server = `127.0.0.1:${gateway.port()}`;
    const start = async (name: ProgramName, ready: RegExp, argv: readonly string[]) => {
      const all = [...programCommand(name), "--log-format", "json", ...argv];
      await new Service(gateway, all, (program) => program.waitForLine(ready)).start();
    };
    await start("udp-server", /"ready"/, ["--listen", server, "--allow", `${TARGET}/32`]);
    const listen = ["--server", server, "--listen", `[::]:${socks}`];
    await start("udp-local", /"msg":"session up"/, [...listen, ...options]);
  }

  async function run(command: string, ...more: readonly (string | number)[]): Promise<unknown[]> {
    const { client: gateway, server: lan } = hosts;
    const args = [command, gateway.ipv4, socks, TARGET, echo, ...more].map(String);
    const lines = await lan.run(["/usr/bin/python3", CLIENT, ...args], { timeoutMs: 30_000 });
    return lines.map((line) => JSON.parse(line));
  }

  it("gives each client a port of --socks-udp-ports FROM-TO, refuses clients beyond the range, and reuses ports", async () => {
    await startLan(["--socks-udp-ports", `${UDP}-${UDP + 2}`], 3);
    const [answers, ports, isOldest] = await run("relays", 4);
    expect(answers).toEqual(["hello", "hello", "hello", 1]);
    expect(ports).toEqual([UDP, UDP + 1, UDP + 2]);
    expect(isOldest).toBe(true);
  });

  it("has one UDP port for all clients, and distinguishes them although they share an IP (PySocks)", async () => {
    await startLan(["--socks-udp-ports", `${UDP}`], 1);
    expect(await run("several")).toEqual([["left 1", "left 2", "left 3"]]);
    const [answers, ports] = await run("relays", 3);
    expect([answers, ports]).toEqual([
      ["hello", "hello", "hello"],
      [UDP, UDP, UDP],
    ]);
  });

  describe.each([
    ["a port of its own", 4],
    ["the port of all", 1],
  ])("a client with %s", (_, count) => {
    const ports = () => (count === 1 ? `${UDP}` : `${UDP}-${UDP + count - 1}`);

    it("is followed when its port changes, and no other IP is accepted", async () => {
      await startLan(["--socks-udp-ports", ports()], count);
      expect(await run("moves", SECOND)).toEqual([["first", "second", null, "first again"]]);
    });

    it("is accepted from only one port with --socks-udp-strict", async () => {
      await startLan(["--socks-udp-ports", ports(), "--socks-udp-strict"], count);
      expect(await run("moves", SECOND)).toEqual([["first", null, null, "first again"]]);
    });
  });

  describe("behind a NAT", () => {
    async function startNat(options: readonly string[]): Promise<string[]> {
      const { client: gateway, server: lan, directory } = hosts;
      await startLan(["--socks-udp-ports", `${UDP}-${UDP + 3}`, ...options], 4);
      const nat = `
        nft add rule inet fence arriving iifname veth0 ip daddr ${gateway.ipv4} meta l4proto udp counter name lost drop
        nft 'table ip nat { chain arriving { type nat hook prerouting priority dstnat; ip daddr ${OUTSIDE} dnat to ${gateway.ipv4}; }; }'`;
      await gateway.run(["sh", "-ec", nat]);
      await lan.run(["ip", "route", "replace", `${OUTSIDE}/32`, "via", gateway.ipv4]);
      const config = join(directory, "socks.conf");
      writeFileSync(
        config,
        `route {
  from: 0.0.0.0/0 to: ${TARGET}/32 via: ${OUTSIDE} port = ${socks}
  command: connect udpassociate
  protocol: tcp udp
  proxyprotocol: socks_v5
  method: none
}
`,
      );
      // dante's client sends to the address in the reply.
      const ask = `echo hello | SOCKS_CONF=${config} socksify nc -u -w 2 ${TARGET} ${echo} 2>/dev/null || true`;
      return lan.run(["sh", "-c", ask]);
    }

    it("sends clients to the address of --socks-advertise (dante's socksify)", async () => {
      expect(await startNat(["--socks-advertise", OUTSIDE])).toEqual(["hello"]);
      const [bound] = await run("bound");
      expect(bound).toEqual([OUTSIDE, expect.any(Number)]);
    });

    it("without it, sends them to an address that they cannot reach", async () => {
      expect(await startNat([])).toEqual([]);
      const [bound] = await run("bound");
      expect(bound).toEqual([hosts.client.ipv4, expect.any(Number)]);
    });
  });
});
