import { randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { ProgramName } from "../../support/hosts.ts";
import { programCommand } from "../../support/hosts.ts";
import type { Host, TwoHosts } from "../network/two-hosts.ts";
import { Service } from "./chain.ts";

/** Writes a new pre-shared key. @returns the path of its file */
export function makeKeyFile(hosts: TwoHosts): string {
  const path = join(hosts.directory, "psk");
  writeFileSync(path, `${randomBytes(32).toString("base64url")}\n`, { mode: 0o600 });
  return path;
}

/**
 * In milliseconds: a pause in which the machine does not run a program must not count as loss. A later value of the option overrides this.
 */
const AGE_BUDGET = ["--age-budget-ms", "5000"];

function program(host: Host, name: ProgramName, options: readonly string[]): Service {
  const argv = [...programCommand(name), "--log-format", "json", ...AGE_BUDGET, ...options];
  return new Service(host, argv, (started) => started.waitForLine(new RegExp(`"ready":"${name}"`)));
}

/** udp-server, which may send to the loopback, to the addresses of its own host and to the networks given. */
export function udpServer(
  hosts: TwoHosts,
  listen: string,
  keyFile: string,
  networks: readonly string[] = [],
  options: readonly string[] = [],
): Service {
  const { ipv4, ipv6 } = hosts.server;
  const targets = ["127.0.0.0/8", "::1/128", `${ipv4}/32`, `${ipv6}/128`, ...networks];
  const allow = targets.flatMap((target) => ["--allow", target]);
  return program(hosts.server, "udp-server", [
    "--listen",
    listen,
    "--psk-file",
    keyFile,
    ...allow,
    ...options,
  ]);
}

/** udp-server without a key, for clients of standard MASQUE, which may send to the networks given. */
export function masqueProxy(hosts: TwoHosts, listen: string, networks: readonly string[]): Service {
  const allow = networks.flatMap((network) => ["--allow", network]);
  return program(hosts.server, "udp-server", ["--listen", listen, "--insecure-open-relay", ...allow]);
}

/** udp-local at a MASQUE proxy. */
export function masqueLocal(hosts: TwoHosts, template: string, options: readonly string[]): Service {
  return program(hosts.client, "udp-local", ["--masque", template, ...options]);
}

export function udpLocal(hosts: TwoHosts, keyFile: string, options: readonly string[]): Service {
  return program(hosts.client, "udp-local", ["--psk-file", keyFile, ...options]);
}

export function tun2socks(host: Host, options: readonly string[]): Service {
  return program(host, "tun2socks", options);
}
