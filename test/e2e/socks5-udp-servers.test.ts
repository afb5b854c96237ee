import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect, it } from "vitest";
import { programCommand } from "../support/hosts.ts";
import { describeOnTwoHosts } from "./network/requirements.ts";
import type { TwoHosts } from "./network/two-hosts.ts";
import { useTwoHosts } from "./network/use-two-hosts.ts";
import { Service } from "./programs/chain.ts";
import { makeKeyFile } from "./programs/underpass.ts";
import { startUdpEcho } from "./targets/targets.ts";

/** The address at which the client reaches danted through a NAT of the server host, and danted's own address. */
const OUTSIDE = "203.0.113.5";
const INSIDE = "10.88.0.1";

describeOnTwoHosts(
  "danted behind a NAT, which names its private address in the reply to UDP ASSOCIATE",
  () => {
    let hosts: TwoHosts;
    useTwoHosts(
      (made) => {
        hosts = made;
      },
      { keepPrograms: true },
    );
    let dantePort = 0;
    let echoPort = 0;

    beforeAll(async () => {
      const { client, server, directory } = hosts;
      for (const host of [client, server]) {
        await host.run(["nft", "flush", "chain", "inet", "fence", "arriving"]);
      }
      const nat = `table ip nat { chain arriving { type nat hook prerouting priority dstnat; ip daddr ${OUTSIDE} dnat to ${INSIDE}; }; }`;
      await server.run(["nft", nat]);
      await server.run(["ip", "addr", "add", `${INSIDE}/32`, "dev", "lo"]);
      await client.run(["ip", "route", "add", `${OUTSIDE}/32`, "via", server.ipv4]);
      echoPort = await startUdpEcho(server);
      dantePort = server.port();
      const config = join(directory, "danted.conf");
      writeFileSync(
        config,
        `logoutput: stderr
internal: ${INSIDE} port = ${dantePort}
external: ${INSIDE}
socksmethod: none
clientmethod: none
user.unprivileged: root
client pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }
socks pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }
`,
      );
      server.spawn(["danted", "-f", config, "-p", join(directory, "danted.pid")]);
      await server.waitForTcp(INSIDE, dantePort);
    });

    it("has its relay at the address where it is reachable, so --egress sends through it", async () => {
      const { client } = hosts;
      const keyFile = makeKeyFile(hosts);
      const [listen, forward] = [client.port(), client.port()];
      const start = async (name: "udp-server" | "udp-local", ready: RegExp, options: readonly string[]) => {
        const argv = [...programCommand(name), "--log-format", "json", "--psk-file", keyFile];
        await new Service(client, [...argv, ...options], (program) => program.waitForLine(ready)).start();
      };
      await start("udp-server", /"ready"/, [
        ...["--listen", `127.0.0.1:${listen}`, "--allow", `${INSIDE}/32`],
        ...["--egress", `socks5://${OUTSIDE}:${dantePort}`],
      ]);
      await start("udp-local", /"msg":"session up"/, [
        ...["--server", `127.0.0.1:${listen}`, "--forward", `127.0.0.1:${forward}=${INSIDE}:${echoPort}`],
      ]);
      const nc = ["nc", "-u", "-w", "1", "127.0.0.1", `${forward}`];
      expect(await client.run(nc, { input: "hello\n" })).toEqual(["hello"]);
    });
  },
);
