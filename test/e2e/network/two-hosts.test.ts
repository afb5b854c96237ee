import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { type Service, ssLocal, ssServer, ssTunnel } from "../programs/chain.ts";
import { startDns, startUdpEcho } from "../targets/targets.ts";
import { describeOnTwoHosts } from "./requirements.ts";
import type { TwoHosts } from "./two-hosts.ts";
import { useTwoHosts } from "./use-two-hosts.ts";

describeOnTwoHosts("two hosts, by Debian's programs alone", () => {
  let hosts: TwoHosts;
  useTwoHosts((made) => {
    hosts = made;
  });

  async function askUdpEcho(from: "client" | "server", address: string, port: number): Promise<string[]> {
    const target = address.includes(":") ? `UDP6:[${address}]:${port}` : `UDP4:${address}:${port}`;
    return hosts[from].run(["socat", "-t", "0.5", "-", target], { input: "whoami" });
  }

  it("a UDP packet is answered within a host and dropped between the hosts, over IPv4 and IPv6", async () => {
    for (const address of [hosts.server.ipv4, hosts.server.ipv6]) {
      const port = await startUdpEcho(hosts.server);
      const before = hosts.udpDropped();
      expect(await askUdpEcho("server", address, port)).toHaveLength(1);
      expect(hosts.udpDropped()).toBe(before);
      expect(await askUdpEcho("client", address, port)).toEqual([]);
      expect(hosts.udpDropped()).toBe(before + 1);
    }
  });

  it("a UDP packet from the server host is dropped too, whole or in fragments", async () => {
    const port = await startUdpEcho(hosts.client);
    const before = hosts.udpDropped();
    expect(await askUdpEcho("server", hosts.client.ipv4, port)).toEqual([]);
    expect(hosts.udpDropped()).toBe(before + 1);
    const target = `UDP4:${hosts.client.ipv4}:${port}`;
    const input = "x".repeat(4000);
    expect(await hosts.server.run(["socat", "-b", "8000", "-t", "0.5", "-", target], { input })).toEqual([]);
    expect(hosts.udpDropped()).toBeGreaterThan(before + 1);
  });

  it("dnsmasq answers dig within the server host", async () => {
    const port = await startDns(hosts.server);
    expect(await hosts.server.run(["dig", "@127.0.0.1", "-p", `${port}`, "example.test", "+short"])).toEqual([
      "192.0.2.7",
    ]);
  });

  /** A TCP echo on the server's loopback, and a hop of the client host that leads to it through ss-server. */
  async function makeChain(
    how: "ss-tunnel" | "ss-local",
  ): Promise<{ hop: Service; askEcho(): Promise<void> }> {
    const target = hosts.server.port();
    hosts.server.spawn(["socat", `TCP-LISTEN:${target},bind=127.0.0.1,fork,reuseaddr`, "EXEC:cat"]);
    await hosts.server.waitForTcp("127.0.0.1", target);
    const remote = { address: hosts.server.ipv4, port: hosts.server.port() };
    await ssServer(hosts, remote.address, remote.port).start();
    const port = hosts.client.port();
    const tunnelled = how === "ss-tunnel";
    const hop = tunnelled
      ? ssTunnel(hosts, remote, port, `127.0.0.1:${target}`)
      : ssLocal(hosts, remote, port);
    await hop.start();
    const viaSocks = ["-X", "5", "-x", `127.0.0.1:${port}`, "127.0.0.1", `${target}`];
    const askEcho = async () => {
      const client = hosts.client.spawn(["nc", ...(tunnelled ? ["127.0.0.1", `${port}`] : viaSocks)]);
      client.stdin.write("through the chain\n");
      await client.waitForLine(/^through the chain$/);
    };
    return { hop, askEcho };
  }

  it.each(["ss-tunnel", "ss-local"] as const)(
    "TCP goes through %s, obfs-local, obfs-server, ss-server",
    async (how) => {
      const { askEcho } = await makeChain(how);
      await askEcho();
    },
  );

  it("a killed hop takes its plugin down with it, and works again after a restart", async () => {
    const { hop, askEcho } = await makeChain("ss-tunnel");
    const countPlugins = ["sh", "-c", "ss -Htnlp | grep -c obfs-local || true"];
    expect(await hosts.client.run(countPlugins)).toEqual(["1"]);
    await hop.kill();
    expect(await hosts.client.run(countPlugins)).toEqual(["0"]);
    await hop.start();
    await askEcho();
  });

  it("cutting TCP ends an established connection", async () => {
    const port = hosts.server.port();
    hosts.server.spawn(["nc", "-lk", hosts.server.ipv4, `${port}`]);
    await hosts.client.waitForTcp(hosts.server.ipv4, port);
    const connection = hosts.client.spawn(["nc", hosts.server.ipv4, `${port}`]);
    const connected = `until ss -Htn state established dport = :${port} | grep -q .; do sleep 0.02; done`;
    await hosts.client.run(["sh", "-c", connected]);
    await hosts.client.cutTcp(port);
    await connection.exit(2000);
    await expect(hosts.client.cutTcp(port)).rejects.toThrow("no TCP connection");
  });

  it("a line that arrives while the test's process stands still for longer than the deadline arrives in time", async () => {
    const written = join(hosts.directory, "written");
    const program = hosts.client.spawn(["sh", "-c", `echo line; touch ${written}; exec sleep infinity`]);
    const line = program.waitForLine(/^line$/, 200);
    execFileSync("sh", ["-c", `until [ -e ${written} ]; do sleep 0.02; done; sleep 0.3`]);
    await line;
  });

  it("nothing is left when the process that created the hosts is killed", async () => {
    const module = fileURLToPath(new URL("two-hosts.ts", import.meta.url));
    const script = `
      import { TwoHosts } from ${JSON.stringify(module)};
      const hosts = new TwoHosts();
      hosts.client.spawn(["sleep", "1000"]);
      console.log(hosts.client.namespace, hosts.server.namespace);`;
    const bundle = ["--bundle", "--format=esm", "--platform=node", "--loader=ts"];
    const esbuild = spawn("node_modules/.bin/esbuild", bundle, { stdio: ["pipe", "pipe", "inherit"] });
    esbuild.stdin.end(script);
    const code = (await esbuild.stdout.toArray()).join("");
    const maker = spawn(process.execPath, ["--input-type=module", "-"], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    maker.stdin.end(code);
    const [names] = (await once(maker.stdout, "data")) as [Buffer];
    const [client, server] = names.toString().trim().split(" ");
    maker.kill("SIGKILL");
    const gone = `until ! ip netns list | grep -qE '^(${client}|${server})( |$)'; do sleep 0.05; done`;
    await hosts.client.run(["sh", "-c", gone], { timeoutMs: 5000 });
  });
});
