import type { Counters } from "../../core/counters.ts";
import { randomSeed } from "../../core/handshakes/credentials.ts";
import type { Dialect } from "../../wire/dialects/dialect.ts";
import { sniffSocks5 } from "../../wire/dialects/dialects.ts";
import type { FirstBytesProtocol } from "../../wire/http/first-bytes.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { makeAddress } from "../../wire/socket-address.ts";
import { COMMAND_CONNECT } from "../../wire/socks5.ts";
import { parseEndpoint } from "../addresses/endpoint.ts";
import type { NameLookups } from "../addresses/name-lookups.ts";
import type { TargetPolicy } from "../addresses/target-policy.ts";
import type { Logger } from "../log.ts";
import { parseEgress } from "../options/egress-option.ts";
import type { ResolvedUdpServerOptions } from "../options/udp-server.ts";
import type { System } from "../system.ts";
import { unixSeconds } from "../system.ts";
import { DirectPath } from "../udp-paths/direct.ts";
import type { OpenPacketEgress } from "../udp-paths/egress.ts";
import { openEgress } from "../udp-paths/egress.ts";
import { DialectHost } from "./dialect-host.ts";
import { dialectLimits } from "./dialect-limits.ts";
import { parseDialects } from "./dialect-options.ts";

const DNS_PORT = 53;

/** A protocol on udp-server's port: one dialect, or SOCKS5 for the dialects that begin with it. */
export interface DialectProtocol extends FirstBytesProtocol {
  readonly how: Dialect | readonly Dialect[];
}

/** The protocols of `--dialects`, as a listener distinguishes them, in order of precedence. */
export function dialectProtocols(texts: readonly string[]): readonly DialectProtocol[] {
  const dialects = new Set(texts.flatMap((text) => parseDialects(text)!));
  const bySocks = [...dialects].filter(({ opening }) => opening.kind === "socks5");
  const protocols: DialectProtocol[] = [];
  if (bySocks.length > 0) protocols.push({ name: "socks5", sniff: sniffSocks5, how: bySocks });
  for (const dialect of dialects) {
    const { name, opening } = dialect;
    if (opening.kind === "first-bytes") protocols.push({ name, sniff: opening.sniff, how: dialect });
  }
  return protocols;
}

/** The dialect of `--dialects` that a CONNECT to `target` asks for. */
export function dialectOfConnect(texts: readonly string[], target: AddressBytes): Dialect | undefined {
  return texts
    .flatMap((text) => parseDialects(text)!)
    .find(
      ({ opening }) =>
        opening.kind === "socks5" && opening.command === COMMAND_CONNECT && opening.matches(target),
    );
}

/** The dialects of a udp-server, with a way out of their own. @throws HostError when the egress cannot be opened */
export async function openServerDialects(
  options: ResolvedUdpServerOptions,
  policy: TargetPolicy,
  names: NameLookups,
  counters: Counters,
  system: System,
  log: Logger,
  openPacketEgress: OpenPacketEgress | undefined,
): Promise<DialectHost> {
  const { connections, flows } = dialectLimits(options, system.descriptorLimit());
  const { dialectTarget, maxHalfOpen, maxAssociationsPerSession, maxContextsPerSession, idleTimeoutS } =
    options;
  const seed = randomSeed(system.cryptography);
  const host = new DialectHost(
    {
      target: dialectTarget === undefined ? undefined : targetOf(dialectTarget),
      nameserver: nameserver(system),
      permits: (target) => policy.permits(target),
      resolvesNames: true,
      filtering: options.filtering,
      maxConnections: connections,
      maxHalfOpen,
      maxFlows: flows,
      maxFlowsPerConnection: maxAssociationsPerSession,
      maxRemotes: maxContextsPerSession,
      queueBytes: options.queueBytes,
      ageBudgetMs: options.ageBudgetMs,
      handshakeTimeoutMs: options.handshakeTimeoutMs,
      idleTimeoutMs: idleTimeoutS * 1000,
      seed,
      unixSeconds: () => unixSeconds(system),
    },
    names,
    counters,
    system,
    log,
  );
  const egress = await openEgress(
    parseEgress(options.egress)!,
    idleTimeoutS,
    host,
    system,
    log,
    openPacketEgress,
  );
  host.use(egress ?? new DirectPath(system, host, log, seed));
  return host;
}

/** The address of a `HOST:PORT` that the options checked. */
function targetOf(text: string): AddressBytes {
  const { host, port } = parseEndpoint(text) as { host: string; port: number };
  return makeAddress(host, port)!;
}

/** The system's first resolver on port 53. */
function nameserver(system: System): AddressBytes | undefined {
  for (const text of system.nameservers()) {
    const address = makeAddress(text, DNS_PORT);
    if (address !== undefined) return address;
  }
  return undefined;
}
