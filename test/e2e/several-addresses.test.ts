import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { programCommand } from "../support/hosts.ts";
import { describeOnTwoHosts } from "./network/requirements.ts";
import type { Program, TwoHosts } from "./network/two-hosts.ts";
import { useTwoHosts } from "./network/use-two-hosts.ts";
import { Service } from "./programs/chain.ts";
import { waitForEcho } from "./programs/echo.ts";
import { makeKeyFile, udpServer } from "./programs/underpass.ts";
import { startTcpEcho, startUdpEcho } from "./targets/targets.ts";

/** Nothing answers here. */
const BLACK_HOLES = { IPv4: "10.77.0.66", IPv6: "2001:db8:77::66" };
/** An address that is preferred to IPv4, unlike the unique local {@link Host.ipv6} (RFC 6724). */
const SERVER_IPV6 = "2001:db8:77::2";
/** Asks the SOCKS5 server on port argv[1] for argv[2], and resets the connection when its stdin ends. */
const GIVE_UP = `
import socket, struct, sys
name = sys.argv[2].encode()
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.sendall(b"\\5\\1\\0\\5\\1\\0\\3" + bytes([len(name)]) + name + b"\\0\\11")
sys.stdin.read()
s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
s.close()
`;
const NATIVE = process.env.UNDERPASS_IO !== "plain";

describeOnTwoHosts("a name with several addresses", () => {
  let hosts: TwoHosts;
  let echoPort: number;
  let keyFile: string;
  useTwoHosts((made) => {
    hosts = made;
  });

  beforeAll(async () => {
    const { client, server, directory } = hosts;
    await client.run([
      ...["sh", "-ec"],
      `ip addr add 2001:db8:77::1/64 dev veth0 nodad
       ip neigh add ${BLACK_HOLES.IPv4} lladdr 02:00:00:00:00:66 dev veth0
       ip neigh add ${BLACK_HOLES.IPv6} lladdr 02:00:00:00:00:66 dev veth0`,
    ]);
    await server.run(["ip", "addr", "add", `${SERVER_IPV6}/64`, "dev", "veth0", "nodad"]);
    const names = {
      "hole-and-server.test": [BLACK_HOLES.IPv6, server.ipv4],
      "server.test": [SERVER_IPV6, server.ipv4],
      "holes.test": [BLACK_HOLES.IPv6, BLACK_HOLES.IPv4],
    };
    const lines = Object.entries(names).flatMap(([name, addresses]) =>
      addresses.map((address) => `${address} ${name}\n`),
    );
    writeFileSync(join(directory, "hosts"), lines.join(""));
    keyFile = makeKeyFile(hosts);
  });

  /** Starts a udp-local that can resolve the names. */
  async function startLocal(options: readonly string[]): Promise<Program> {
    const script = 'mount --bind "$1" /etc/hosts; shift; exec "$@"';
    const service = new Service(
      hosts.client,
      [
        ...["sh", "-ec", script, "sh", join(hosts.directory, "hosts")],
        ...[...programCommand("udp-local"), "--log-format", "json", "--psk-file", keyFile],
        // Further lanes would make attempts of their own once the first is up.
        ...["--lanes", "1"],
        ...options,
      ],
      (started) => started.waitForLine(/"ready":"udp-local"/),
    );
    await service.start();
    return service.program;
  }

  /** Connections that are still waiting for an answer. */
  const synSent = () => hosts.client.run(["ss", "-Htn", "state", "syn-sent"]);

  async function waitForSynSent(count: number): Promise<void> {
    const poll = `until [ $(ss -Htn state syn-sent | wc -l) = ${count} ]; do sleep 0.02; done`;
    await hosts.client.run(["sh", "-c", poll], { timeoutMs: 5_000 });
  }

  const WAYS = ["", "--out-interface veth0", "--out-mark 7"].slice(0, NATIVE ? 3 : 1);
  describe.each(WAYS)("%s", (way) => {
    const out = way.split(" ").filter((option) => option !== "");

    /** Starts udp-server on one address. @returns its port */
    async function startServer(address: string): Promise<number> {
      echoPort = await startUdpEcho(hosts.server);
      const port = hosts.server.port();
      await udpServer(hosts, `${address}:${port}`, keyFile).start();
      return port;
    }

    async function expectTunnel(server: string): Promise<void> {
      const forwardPort = hosts.client.port();
      const forward = ["--forward", `127.0.0.1:${forwardPort}=127.0.0.1:${echoPort}`];
      const local = await startLocal(["--server", server, ...forward, ...out]);
      // Waiting for the black hole would exceed the deadline of the whole connection.
      await local.waitForLine(/"msg":"session up"/, 5_000);
      await waitForEcho(hosts.client, "127.0.0.1", forwardPort);
      expect(local.lines.filter(({ text }) => /cannot reach/.test(text))).toEqual([]);
    }

    it("is reached at its second address when the first is a black hole, and the first attempt is cancelled", async () => {
      await expectTunnel(`hole-and-server.test:${await startServer(hosts.server.ipv4)}`);
      expect(await synSent()).toEqual([]);
    });

    it("is reached at its second address when the first refuses", async () => {
      await expectTunnel(`server.test:${await startServer(hosts.server.ipv4)}`);
    });

    it("that refuses on all of them is reported with each address and the reason", async () => {
      const port = hosts.server.port();
      const local = await startLocal(["--server", `server.test:${port}`, ...out]);
      const refused = (address: string) => `${address}: connection refused \\(ECONNREFUSED\\)`;
      const both = `${refused(SERVER_IPV6)}; ${refused(hosts.server.ipv4)}`;
      await local.waitForLine(new RegExp(`cannot connect: server\\.test:${port}: ${both}"`));
    });

    it("keeps no descriptor of a connection whose application resets it", async () => {
      const socksPort = hosts.client.port();
      const server = `${hosts.server.ipv4}:${await startServer(hosts.server.ipv4)}`;
      const local = await startLocal(["--server", server, "--listen", `127.0.0.1:${socksPort}`, ...out]);
      // Attempts to reach the server also have descriptors.
      await local.waitForLine(/"msg":"session up"/, 5_000);
      const folder = `/proc/${local.pid}/fd`;
      const before = (await hosts.client.run(["ls", folder])).length;
      const application = hosts.client.spawn(["python3", "-c", GIVE_UP, `${socksPort}`, "holes.test"]);
      await waitForSynSent(2);
      application.stdin.end();
      await waitForSynSent(0);
      const poll = `until [ $(ls ${folder} | wc -l) = ${before} ]; do sleep 0.02; done`;
      await hosts.client.run(["sh", "-c", poll], { timeoutMs: 5_000 });
    });

    it("is reached by a SOCKS5 client's CONNECT, past a black hole", async () => {
      const port = await startTcpEcho(hosts.server, hosts.server.ipv4);
      const socksPort = hosts.client.port();
      const listen = ["--server", `127.0.0.1:${hosts.client.port()}`, "--listen", `127.0.0.1:${socksPort}`];
      await startLocal([...listen, ...out]);
      const nc = ["nc", "-N", "-X", "5", "-x", `127.0.0.1:${socksPort}`, "hole-and-server.test", `${port}`];
      expect(await hosts.client.run(nc, { input: "hello\n" })).toEqual(["hello"]);
    });
  });

  it("that does not answer on any address within 10 s is reported with each", async () => {
    const local = await startLocal(["--server", "holes.test:9"]);
    const silent = `${BLACK_HOLES.IPv6}: no answer; ${BLACK_HOLES.IPv4}: no answer`;
    const text = `cannot connect: holes\\.test:9: nothing within 10000 ms \\(${silent}\\)`;
    await local.waitForLine(new RegExp(text), 15_000);
  });
});
