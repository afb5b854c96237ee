import { fileURLToPath } from "node:url";
import { beforeAll, expect, it } from "vitest";
import { programCommand } from "../support/hosts.ts";
import { describeOnTwoHosts } from "./network/requirements.ts";
import type { Host, TwoHosts } from "./network/two-hosts.ts";
import { useTwoHosts } from "./network/use-two-hosts.ts";
import { Service } from "./programs/chain.ts";
import { makeKeyFile, udpLocal, udpServer } from "./programs/underpass.ts";
import { startTcpEcho, startUdpEcho } from "./targets/targets.ts";

const ASK = fileURLToPath(new URL("peers/socks5/ask-by-socks.mjs", import.meta.url));

/** The address that the kernel gave to this end of the link, with its zone, once duplicate detection has finished. */
async function linkLocal(host: Host): Promise<string> {
  const script =
    "until ip -6 -o addr show dev veth0 scope link | grep -v tentative; do sleep 0.05; done | grep -o 'fe80[^/]*'";
  const [address] = await host.run(["sh", "-c", script]);
  return `${address}%veth0`;
}

describeOnTwoHosts("on a link whose hosts know each other by link-local addresses alone", () => {
  let hosts: TwoHosts;
  useTwoHosts(
    (made) => {
      hosts = made;
    },
    { keepPrograms: true },
  );

  let near = "";
  let udpEcho = 0;
  let tcpEcho = 0;
  let socksPort = 0;
  let forwardPort = 0;
  let anyForwardPort = 0;
  let keyFile = "";

  beforeAll(async () => {
    const { client, server } = hosts;
    // Here both hosts are in one LAN that passes UDP.
    for (const host of [client, server]) {
      await host.run(["nft", "flush", "chain", "inet", "fence", "arriving"]);
    }
    near = await linkLocal(client);
    const far = await linkLocal(server);
    udpEcho = await startUdpEcho(server);
    tcpEcho = await startTcpEcho(server, server.ipv4);
    keyFile = makeKeyFile(hosts);
    const port = server.port();
    [socksPort, forwardPort, anyForwardPort] = [client.port(), client.port(), client.port()];
    await udpServer(hosts, `[${far}]:${port}`, keyFile).start();
    const local = udpLocal(hosts, keyFile, [
      ...["--server", `[${far}]:${port}`, "--listen", `[${near}]:${socksPort}`],
      ...["--forward", `[${near}]:${forwardPort}=127.0.0.1:${udpEcho}`],
      // Natively, connections with a mark do not use node:net.
      ...(process.env.UNDERPASS_IO === "plain" ? [] : ["--out-mark", "7"]),
      ...["--forward", `[::]:${anyForwardPort}=127.0.0.1:${udpEcho}`],
    ]);
    await local.start();
    await local.program.waitForLine(/"msg":"session up"/);
  });

  it("a SOCKS5 client gets its datagrams back", async () => {
    const argv = [process.execPath, ASK, near, `${socksPort}`, "127.0.0.1", `${udpEcho}`];
    expect(await hosts.server.run(argv)).toEqual([`hello from 127.0.0.1:${udpEcho}`]);
  });

  it("curl's CONNECT gets through", async () => {
    const [address] = near.split("%");
    const proxy = `socks5://[${address}%25veth0]:${socksPort}`;
    const url = `telnet://${hosts.server.ipv4}:${tcpEcho}`;
    const argv = ["sh", "-c", 'echo hello | timeout 1 curl -sS -N --proxy "$0" "$1" || true', proxy, url];
    expect(await hosts.server.run(argv)).toEqual(["hello"]);
  });

  it.each(["a forward that is bound to one", "a forward that is bound to any address"])(
    "%s answers nc",
    async (name) => {
      const port = name.includes("any") ? anyForwardPort : forwardPort;
      const nc = ["nc", "-u", "-w", "1", near, `${port}`];
      expect(await hosts.server.run(nc, { input: "hello\n" })).toEqual(["hello"]);
    },
  );

  it("--egress reaches a SOCKS5 server there, and gets answers from its relay", async () => {
    const { server } = hosts;
    const [listen, forward] = [server.port(), server.port()];
    const command = (name: "udp-server" | "udp-local", options: readonly string[]) => {
      const argv = [...programCommand(name), "--log-format", "json", "--psk-file", keyFile, ...options];
      return new Service(server, argv, (program) => program.waitForLine(/"ready"/));
    };
    const egress = `socks5://[${near.replace("%", "%25")}]:${socksPort}`;
    await command("udp-server", [
      ...["--listen", `127.0.0.1:${listen}`, "--egress", egress, "--allow", "127.0.0.1/32"],
    ]).start();
    const local = command("udp-local", [
      ...["--server", `127.0.0.1:${listen}`, "--forward", `127.0.0.1:${forward}=127.0.0.1:${udpEcho}`],
    ]);
    await local.start();
    await local.program.waitForLine(/"msg":"session up"/);
    const nc = ["nc", "-u", "-w", "1", "127.0.0.1", `${forward}`];
    expect(await server.run(nc, { input: "hello\n" })).toEqual(["hello"]);
  });
});
