import { readFileSync } from "node:fs";
import { splitZone } from "../../host/addresses/endpoint.ts";
import { Cancellation } from "../../host/cancellation.ts";
import { resolveHost } from "../../host/carriers/happy-eyeballs.ts";
import type { Bench } from "../../host/doctor/bench.ts";
import type { Check, Result } from "../../host/doctor/checks/check.ts";
import { skipped } from "../../host/doctor/checks/check.ts";
import { firstEndpoint } from "../../host/doctor/checks/name-check.ts";
import { chainOf } from "../../host/doctor/examined.ts";
import type { Finding } from "../../host/doctor/findings.ts";
import { finding } from "../../host/doctor/findings.ts";
import type { ResolvedTun2SocksOptions } from "../../host/options/tun2socks.ts";
import type { Route } from "./route-table.ts";
import { readRoutes, routeText, routeTo } from "./route-table.ts";

/** The file of systemd-resolved, whose stub is at 127.0.0.53. */
const RESOLVED_CONF = "/run/systemd/resolve/resolv.conf";

/**
 * Checks whether the routes can be set, whether packets that tun2socks sends would enter its own device, and what does not enter
 * it.
 */
export function routeCheck(options: ResolvedTun2SocksOptions): Check<Bench> {
  const { device, routes: wanted } = options;
  const name = typeof device === "string" && device.startsWith("tun:") ? device.slice(4) : undefined;
  return {
    name: "routes",
    needs: [],
    async run(bench): Promise<Result> {
      if (name === undefined || process.platform !== "linux") return skipped("no TUN device on Linux");
      const present = readRoutes();
      const taken = wanted.flatMap((route) => takenBy(present, route, name));
      if (taken.length > 0) return { measured: "a route exists", findings: taken.slice(0, 1) };
      const added = wanted.map((route): Route => ({ ...route, metric: 0, interfaceName: name }));
      const table = [...present, ...added];
      const leading = table.filter(({ interfaceName }) => interfaceName === name);
      const measured =
        leading.length === 0
          ? "none leads to the device"
          : `to the device: ${[...new Set(leading.map(routeText))].join(", ")}`;
      const loops = await findLoop(bench, options, table, name);
      if (loops !== undefined) return { measured, findings: [loops] };
      const findings =
        leading.length === 0
          ? [finding("route-none", [`no route leads to ${name}`])]
          : findLeaks(bench, table, leading, name);
      return { measured, data: { routes: leading.map(routeText) }, findings };
    },
  };
}

/** The kernel refuses a second IPv4 route to the same network at the same metric. */
function takenBy(
  present: readonly Route[],
  route: Pick<Route, "network" | "prefixLength">,
  device: string,
): Finding[] {
  const text = routeText(route);
  const other = present.find(
    (one) =>
      one.interfaceName !== device &&
      one.metric === 0 &&
      route.network.length === 4 &&
      routeText(one) === text,
  );
  return other === undefined
    ? []
    : [finding("route-taken", [`${text} leads to ${other.interfaceName}`], { route: text })];
}

/** Whether lanes would enter the device. */
async function findLoop(
  bench: Bench,
  { tunnel, usesTunnel }: ResolvedTun2SocksOptions,
  table: readonly Route[],
  device: string,
): Promise<Finding | undefined> {
  const { outInterface, outMark } = tunnel;
  // Their sockets are bound to the interface, or have a mark, for which the user sets the rules.
  if (!usesTunnel || (outInterface !== undefined && outInterface !== device) || outMark > 0) return undefined;
  for (const way of tunnel.ways.keys()) {
    const first = firstEndpoint(chainOf({ ...bench, way }));
    if (first.path !== undefined) continue;
    for (const address of await addressesOf(bench, first.host)) {
      const ip = splitZone(address).ip;
      if (/^127\.|^::1$/.test(ip)) continue;
      const route = routeTo(table, ip);
      if (route?.interfaceName !== device) continue;
      const past = routeTo(
        table.filter(({ interfaceName }) => interfaceName !== device),
        ip,
      );
      const evidence = `the way to the server begins at ${ip}, and ${routeText(route)} leads into ${device}`;
      return finding("route-loop", [evidence], { interface: past?.interfaceName ?? "NAME", host: ip });
    }
  }
  return undefined;
}

async function addressesOf(bench: Bench, host: string): Promise<readonly string[]> {
  const deadline = new Cancellation().within(bench.system, bench.settings.testTimeoutMs);
  try {
    return await resolveHost(bench.system, host, deadline);
  } catch {
    // The name check reports the failure.
    return [];
  } finally {
    deadline.release();
  }
}

/** Finds what bypasses the device although nearly everything enters it. */
function findLeaks(
  bench: Bench,
  table: readonly Route[],
  leading: readonly Route[],
  device: string,
): Finding[] {
  const hasAll = (bytes: number, routes: readonly Route[]) =>
    routes.filter(({ network, prefixLength }) => network.length === bytes && prefixLength <= 1).length > 0;
  if (!hasAll(4, leading) && !hasAll(16, leading)) return [];
  const findings: Finding[] = [];
  const outside = resolvers(bench).filter((ip) => {
    const route = routeTo(table, splitZone(ip).ip);
    return !/^127\.|^::1$/.test(ip) && route !== undefined && route.interfaceName !== device;
  });
  if (outside.length > 0) {
    const route = routeTo(table, splitZone(outside[0]).ip)!;
    const evidence = `the resolver ${outside[0]} is reached by ${routeText(route)} on ${route.interfaceName}`;
    findings.push(finding("dns-leak", [evidence], { resolver: outside[0] }));
  }
  const others = table.filter(({ interfaceName }) => interfaceName !== device);
  if (hasAll(4, leading) && !hasAll(16, leading) && hasAll(16, others)) {
    findings.push(finding("ipv6-leak", ["0.0.0.0/0 leads into the device, ::/0 does not"]));
  }
  return findings;
}

function resolvers({ system }: Bench): readonly string[] {
  const listed = system.nameservers().map((text) => text.replace(/^\[(.*)\](?::\d+)?$/, "$1"));
  if (!listed.includes("127.0.0.53")) return listed;
  try {
    const own = readFileSync(RESOLVED_CONF, "utf8").matchAll(/^nameserver\s+(\S+)/gm);
    return [...own].map(([, ip]) => ip);
  } catch {
    return listed;
  }
}
