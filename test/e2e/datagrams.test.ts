import { beforeAll, describe, expect, it } from "vitest";
import { describeOnTwoHosts } from "./network/requirements.ts";
import type { TwoHosts } from "./network/two-hosts.ts";
import { useTwoHosts } from "./network/use-two-hosts.ts";
import { type CarrierName, startCarrier } from "./programs/carriers.ts";
import { allSame, checkEcho, type EchoReport, SIZES, waitForEcho } from "./programs/echo.ts";
import { makeKeyFile, udpLocal, udpServer } from "./programs/underpass.ts";
import { startDns, startUdpEcho } from "./targets/targets.ts";

const CARRIERS: CarrierName[] = [
  "ss-tunnel + obfs",
  "ss-local + obfs",
  "ss:// + obfs",
  "ss:// at both ends",
  "TCP over IPv4",
  "TCP over IPv6",
];
/** Bytes of a SOCKS5 header with an address of this family (RFC 1928 section 7). */
const SOCKS5_HEADER = { IPv4: 10, IPv6: 22 };
const REPEAT = 200;

describeOnTwoHosts("datagrams through the tunnel", () => {
  describe.each(CARRIERS)("by %s", (carrierName) => {
    let hosts: TwoHosts;
    useTwoHosts(
      (made) => {
        hosts = made;
      },
      { keepPrograms: true },
    );

    let echoPort = 0;
    /** With the SOCKS5 server on ::1, 65,507 bytes fit after the SOCKS5 header; on 127.0.0.1 they do not. */
    const socks5 = { host: carrierName === "TCP over IPv6" ? "::1" : "127.0.0.1", port: 0 };
    const forwards = { ipv4: 0, ipv6: 0, hostAddress: 0, name: 0, dns: 0 };

    beforeAll(async () => {
      echoPort = await startUdpEcho(hosts.server);
      const dnsPort = await startDns(hosts.server);
      const keyFile = makeKeyFile(hosts);
      const carrier = await startCarrier(hosts, carrierName);
      const targets: Record<keyof typeof forwards, string> = {
        ipv4: `127.0.0.1:${echoPort}`,
        ipv6: `[::1]:${echoPort}`,
        hostAddress: `${hosts.server.ipv4}:${echoPort}`,
        name: `localhost:${echoPort}`,
        dns: `127.0.0.1:${dnsPort}`,
      };
      const forwardOptions: string[] = [];
      for (const name of Object.keys(forwards) as (keyof typeof forwards)[]) {
        forwards[name] = hosts.client.port();
        // The IPv6 forward is queried over IPv6 on this side too.
        const listen = name === "ipv6" ? "[::1]" : "127.0.0.1";
        forwardOptions.push("--forward", `${listen}:${forwards[name]}=${targets[name]}`);
      }
      socks5.port = hosts.client.port();
      await udpServer(hosts, carrier.listen, keyFile).start();
      const listen = [
        "--listen",
        socks5.host === "::1" ? `[::1]:${socks5.port}` : `127.0.0.1:${socks5.port}`,
      ];
      await udpLocal(hosts, keyFile, [...listen, ...carrier.options, ...forwardOptions]).start();
      // The session may not be up for the first datagram, and UDP may be lost; after the first answer, nothing may be lost.
      await waitForEcho(hosts.client, "127.0.0.1", forwards.ipv4);
    });

    function check(path: object, sizes: readonly number[], repeat: number): Promise<EchoReport> {
      return checkEcho(hosts.client, path, repeat, sizes);
    }

    it.each([
      ["IPv4", "127.0.0.1", "ipv4"],
      ["IPv6", "::1", "ipv6"],
    ] as const)(
      "a fixed forward to %s carries 0 to 65,507 bytes unchanged, from one source",
      async (_, host, name) => {
        const report = await check({ forward: { host, port: forwards[name] } }, SIZES, REPEAT);
        expect(report.sizes).toEqual(allSame(SIZES));
        expect(report.answered).toBe(REPEAT);
        expect(report.sources).toHaveLength(1);
      },
    );

    it("a fixed forward reaches the server host's own address, and a domain name that the server resolves", async () => {
      for (const port of [forwards.hostAddress, forwards.name]) {
        const report = await check({ forward: { host: "127.0.0.1", port } }, [1200], 1);
        expect(report).toMatchObject({ sizes: allSame([1200]), answered: 1 });
      }
    });

    it.each([
      ["IPv4", "127.0.0.1"],
      ["IPv6", "::1"],
    ] as const)(
      "SOCKS5 UDP ASSOCIATE to %s carries 0 bytes up to the most that fit with the header, from one source",
      async (family, host) => {
        const longestPacket = socks5.host === "::1" ? 65_527 : 65_507;
        const longest = Math.min(65_507, longestPacket - SOCKS5_HEADER[family]);
        const sizes = [...SIZES.slice(0, -1), longest];
        const report = await check({ socks5, targets: [{ host, port: echoPort }] }, sizes, REPEAT);
        expect(report.sizes).toEqual(allSame(sizes));
        expect(report.answered).toBe(REPEAT);
        expect(report.sources).toHaveLength(1);
      },
    );

    it("a SOCKS5 association has the same source port for every target", async () => {
      const targets = ["127.0.0.1", hosts.server.ipv4].map((host) => ({ host, port: echoPort }));
      const report = await check({ socks5, targets }, [], 20);
      expect(report.answered).toBe(40);
      const ports = new Set(report.sources.map((source) => source.slice(source.lastIndexOf(":"))));
      expect(ports.size, report.sources.join()).toBe(1);
    });

    it("a SOCKS5 association accepts a domain name as target", async () => {
      const targets = [{ host: "localhost", port: echoPort }];
      expect(await check({ socks5, targets }, [1200], 0)).toMatchObject({ sizes: allSame([1200]) });
    });

    it.each([
      ["socat", (port: number) => ["socat", "-", `UDP4:127.0.0.1:${port}`]],
      ["nc -u", (port: number) => ["nc", "-u", "127.0.0.1", `${port}`]],
    ] as const)("%s gets its line back", async (_, argv) => {
      const program = hosts.client.spawn(argv(forwards.ipv4));
      program.stdin.write("a line of text\n");
      await program.waitForLine(/^a line of text$/);
      await program.kill();
      expect(program.lines.map((line) => line.text)).toEqual(["a line of text"]);
    });

    it("dig gets its answer from the DNS responder", async () => {
      const server = ["@127.0.0.1", "-p", `${forwards.dns}`, "+tries=1", "+time=3", "+short"];
      expect(await hosts.client.run(["dig", ...server, "example.test", "A"])).toEqual(["192.0.2.7"]);
    });

    it("no UDP packet ever tried to cross from host to host", () => {
      expect(hosts.udpDropped()).toBe(0);
    });
  });
});
