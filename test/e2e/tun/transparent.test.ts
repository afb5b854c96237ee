import { beforeAll, expect, it } from "vitest";
import { describeWithTun } from "../network/requirements.ts";
import {
  addAddressesBeyond,
  beyond,
  FAMILIES,
  startTransparent,
  type Transparent,
} from "../network/transparent.ts";
import type { TwoHosts } from "../network/two-hosts.ts";
import { useTwoHosts } from "../network/use-two-hosts.ts";
import { allSame, checkEcho, SIZES } from "../programs/echo.ts";
import { fetchPage, startPage } from "../targets/page.ts";
import { startUdpEcho } from "../targets/targets.ts";

const TARGET = beyond(5);

describeWithTun("UDP through ss-tunnel and udp-server, TCP through ss-local", () => {
  let hosts: TwoHosts;
  useTwoHosts(
    (made) => {
      hosts = made;
    },
    { keepPrograms: true },
  );
  let chain: Transparent;
  let echoPort: number;
  let pagePort: number;

  beforeAll(async () => {
    await addAddressesBeyond(hosts);
    [echoPort, pagePort] = [await startUdpEcho(hosts.server, TARGET), await startPage(hosts)];
    chain = await startTransparent(hosts);
  });

  function to(host: string): object {
    return { forward: { host, port: echoPort } };
  }

  it.each(FAMILIES)("0 to 65,507 bytes over %s come back unchanged, from one source", async (family) => {
    const report = await checkEcho(hosts.client, to(TARGET[family]), 200);
    expect(report.sizes).toEqual(allSame(SIZES));
    expect(report.answered).toBe(200);
    expect(report.sources).toHaveLength(1);
  });

  it("pages of 10 MB over IPv4 and IPv6 and UDP get through at the same time", async () => {
    const [report] = await Promise.all([
      checkEcho(hosts.client, to(TARGET.IPv4), 500),
      fetchPage(hosts, TARGET.IPv4, pagePort),
      fetchPage(hosts, TARGET.IPv6, pagePort),
    ]);
    expect(report.sizes).toEqual(allSame(SIZES));
    expect(report.answered).toBe(500);
  });

  // For a target that refuses, ss-local reports "succeeded", then ends the connection.
  it("a connection to a port where nobody listens ends at once", async () => {
    const program = hosts.client.spawn(["curl", "-sS", "-m", "10", `http://${TARGET.IPv4}:9/`]);
    expect(await program.exit(5_000)).not.toBe(0);
    expect(program.lines.at(-1)?.text).toMatch(/reset by peer|Empty reply/);
  });

  it("a connection is reset at once when its SOCKS server is down", async () => {
    await chain.ssLocal.kill();
    const program = hosts.client.spawn([
      ...["curl", "-sS", "-m", "10", `http://${TARGET.IPv4}:${pagePort}/page`],
    ]);
    expect(await program.exit(5_000)).not.toBe(0);
    expect(program.lines.at(-1)?.text).toMatch(/reset by peer|Failed to connect/);
    await chain.ssLocal.start();
    await fetchPage(hosts, TARGET.IPv4, pagePort);
  });

  it("no UDP packet ever tried to cross from host to host", () => {
    expect(hosts.udpDropped()).toBe(0);
  });
});
