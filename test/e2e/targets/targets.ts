import { fileURLToPath } from "node:url";
import type { Host } from "../network/two-hosts.ts";

/** Starts the UDP echo on all addresses of `host`, or on one of each family. @returns its port */
export async function startUdpEcho(
  host: Host,
  on: { readonly IPv4: string; readonly IPv6: string } = { IPv4: "0.0.0.0", IPv6: "::" },
): Promise<number> {
  const script = fileURLToPath(new URL("udp-echo.mjs", import.meta.url));
  const port = host.port();
  await host.spawn([process.execPath, script, `${port}`, on.IPv4, on.IPv6]).waitForLine(/"port"/);
  return port;
}

/** Starts a TCP echo on an address of `host`. @returns its port */
export async function startTcpEcho(host: Host, address: string): Promise<number> {
  const port = host.port();
  const listen = address.includes(":")
    ? `TCP6-LISTEN:${port},bind=[${address}]`
    : `TCP4-LISTEN:${port},bind=${address}`;
  host.spawn(["socat", `${listen},fork,reuseaddr`, "EXEC:cat"]);
  await host.waitForTcp(address, port);
  return port;
}

/** Starts dnsmasq on an address of `host`, or its loopback: example.test is 192.0.2.7, the text of big.test 3,600 bytes. Its port. */
export async function startDns(
  host: Host,
  address = "127.0.0.1",
  port: number = host.port(),
  records: readonly string[] = [],
): Promise<number> {
  host.spawn([
    "dnsmasq",
    "--no-daemon",
    "--conf-file=/dev/null",
    "--pid-file",
    "--user=root",
    "--no-hosts",
    "--no-resolv",
    "--bind-interfaces",
    `--listen-address=${address}`,
    `--port=${port}`,
    "--address=/example.test/192.0.2.7",
    "--edns-packet-max=4096",
    `--txt-record=big.test,${Array.from({ length: 18 }, (_, i) => `${i % 10}`.repeat(200)).join()}`,
    ...records,
  ]);
  await host.waitForTcp(address, port);
  return port;
}
