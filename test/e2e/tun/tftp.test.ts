import { randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, expect, it } from "vitest";
import { describeWithTun } from "../network/requirements.ts";
import { addAddressesBeyond, BEYOND_NETWORKS, BEYOND_ROUTES, beyond } from "../network/transparent.ts";
import type { TwoHosts } from "../network/two-hosts.ts";
import { useTwoHosts } from "../network/use-two-hosts.ts";
import type { Service } from "../programs/chain.ts";
import { makeKeyFile, tun2socks, udpLocal, udpServer } from "../programs/underpass.ts";

const BY_SOCKS = fileURLToPath(new URL("../peers/socks5/tftp-by-socks.py", import.meta.url));
/** Of 197 blocks. */
const LONG = randomBytes(100_500);
/** Of one. */
const SHORT = randomBytes(300);

describeWithTun("TFTP, whose server answers each request from another port (tftpd-hpa)", () => {
  let hosts: TwoHosts;
  useTwoHosts(
    (made) => {
      hosts = made;
    },
    { keepPrograms: true },
  );
  const target = beyond(1).IPv4;
  let tftpPort = 0;
  let socksPort = 0;
  let forwardPort = 0;
  let anyPort = 0;
  let local: Service;

  beforeAll(async () => {
    const { client, server, directory } = hosts;
    await addAddressesBeyond(hosts);
    mkdirSync(join(directory, "tftp"));
    writeFileSync(join(directory, "tftp", "long"), LONG, { mode: 0o644 });
    writeFileSync(join(directory, "tftp", "short"), SHORT, { mode: 0o644 });
    await server.run(["chmod", "755", directory, join(directory, "tftp")]);
    tftpPort = server.port();
    const listen = ["--address", `${target}:${tftpPort}`];
    server.spawn(["in.tftpd", "-L", "-4", ...listen, "--user", "root", "--secure", join(directory, "tftp")]);
    await server.run(["sh", "-c", `until ss -Hlun sport = :${tftpPort} | grep -q .; do sleep 0.02; done`]);
    const keyFile = makeKeyFile(hosts);
    const address = `${server.ipv4}:${server.port()}`;
    await udpServer(hosts, address, keyFile, BEYOND_NETWORKS).start();
    [socksPort, forwardPort, anyPort] = [client.port(), client.port(), client.port()];
    local = udpLocal(hosts, keyFile, [
      ...["--server", address, "--listen", `127.0.0.1:${socksPort}`, "--stats-interval", "1"],
      ...["--forward", `127.0.0.1:${forwardPort}=${target}:${tftpPort}`],
      ...["--forward", `127.0.0.1:${anyPort}=${target}:${tftpPort},any-port`],
    ]);
    const device = tun2socks(client, ["--server", address, "--psk-file", keyFile, ...BEYOND_ROUTES]);
    await Promise.all([local.start(), device.start()]);
    await Promise.all([local, device].map(({ program }) => program.waitForLine(/"msg":"session up"/)));
  });

  /** The file that tftp-hpa's client gets within its 5 s for one attempt, or undefined. */
  async function get(host: string, port: number, name: string): Promise<Buffer | undefined> {
    const copy = join(hosts.directory, `${name}-copy`);
    const argv = ["tftp", "-m", "octet", host, `${port}`, "-c", "get", name, copy];
    await hosts.client.run(["sh", "-c", 'rm -f "$1"; shift; timeout 4 "$@" || true', "sh", copy, ...argv]);
    const bytes = readFileSync(copy);
    return bytes.length === 0 ? undefined : bytes;
  }

  it("gets a file of 197 blocks through tun2socks", async () => {
    expect(await get(target, tftpPort, "long")).toEqual(LONG);
  });

  it("gets it through SOCKS5 (PySocks)", async () => {
    const copy = join(hosts.directory, "socks-copy");
    const argv = ["/usr/bin/python3", BY_SOCKS, `${socksPort}`, target, `${tftpPort}`, "long"];
    await hosts.client.run(["sh", "-c", '"$@" > "$0"', copy, ...argv]);
    expect(readFileSync(copy)).toEqual(LONG);
  });

  it("gets nothing through a forward, which counts the answers as foreign_source", async () => {
    expect(await get("127.0.0.1", forwardPort, "short")).toBeUndefined();
    await local.program.waitForLine(/"drops":\{[^}]*"foreign_source":[1-9]/);
  });

  it("gets no more than one block through a forward with any-port: the client's acknowledgement goes to the first port", async () => {
    expect(await get("127.0.0.1", anyPort, "short")).toEqual(SHORT);
    expect(await get("127.0.0.1", anyPort, "long")).not.toEqual(LONG);
  });
});
