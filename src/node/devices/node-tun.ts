import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import type { TunOptions, TunSystem } from "../../host/devices/tun.ts";
import { formatHost, ipAddress } from "../../wire/socket-address.ts";

/** @see TunSystem */
export const nodeTun: TunSystem = {
  setUp: setUpByIfconfig,
  explainNoDevice: () =>
    existsSync("/dev/net/tun")
      ? undefined
      : "there is no /dev/net/tun: modprobe tun, or give the container that device",
};

/** Only for macOS and the BSDs, whose ioctls differ from system to system. */
function setUpByIfconfig(name: string, { mtu, addresses, routes }: TunOptions): void {
  const run = (program: string, args: readonly string[]) =>
    execFileSync(program, args, { stdio: ["ignore", "ignore", "pipe"] });
  const text = (ip: Uint8Array) => formatHost(ipAddress(ip, 0));
  run("ifconfig", [name, "mtu", String(mtu), "up"]);
  for (const { own, peer, prefixLength } of addresses) {
    if (own.length === 4) run("ifconfig", [name, "inet", text(own), text(peer)]);
    else run("ifconfig", [name, "inet6", text(own), "prefixlen", String(prefixLength)]);
  }
  for (const { network, prefixLength } of routes) {
    const family = network.length === 4 ? "-inet" : "-inet6";
    run("route", ["-n", "add", family, `${text(network)}/${prefixLength}`, "-interface", name]);
  }
}
