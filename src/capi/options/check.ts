import { HostError, UsageError } from "../../core/errors.ts";
import type { TlsOptions } from "../../host/carriers/tls-options.ts";
import { INNER_MTU, parseEgress } from "../../host/options/egress-option.ts";
import type { OptionFields } from "../../host/options/fields/fields.ts";
import { checkFields, embeddersOwn, wrong } from "../../host/options/fields/fields.ts";
import { resolveTun2Socks, TUN2SOCKS_FIELDS } from "../../host/options/fields/tun2socks-fields.ts";
import { resolveUdpLocal, UDP_LOCAL_FIELDS } from "../../host/options/fields/udp-local-fields.ts";
import { resolveUdpServer, UDP_SERVER_FIELDS } from "../../host/options/fields/udp-server-fields.ts";
import type { ResolvedTun2SocksOptions } from "../../host/options/tun2socks.ts";
import { describePlan } from "../../host/options/tun2socks.ts";
import type { ResolvedUdpServerOptions } from "../../host/options/udp-server.ts";
import type { FileHost, StartFailure, StartOptions } from "../c-host.ts";
import { STATS_INTERVAL_FIELD } from "../stats/stats-field.ts";
import { encodeChecked } from "./checked-options.ts";
import { checkOffered, MISSING_OF_LOCAL, MISSING_OF_SERVER, MISSING_OF_TUN2SOCKS } from "./offered.ts";
import { gatherOptions } from "./options.ts";
import { readFile } from "./read-file.ts";
import { findTlsFilesProblem } from "./tls-files.ts";

/**
 * capi/src/instance.c calls this first, in an engine that it closes afterwards, because the option tables are not needed any more.
 *
 * @returns all options with their defaults as JSON, bytes as lists of numbers; the plan as lines of text, if it is wanted; or the
 * problem with the options
 */
function underpassCheck(host: FileHost, start: StartOptions): string | StartFailure {
  try {
    if (start.wantsPlan === true) return describePlan(checkTun2Socks(host, start)).join("\n");
    return encodeChecked(CHECK[start.program](host, start));
  } catch (error) {
    if (error instanceof UsageError || error instanceof HostError) {
      return { status: error.status, text: error.message };
    }
    throw error;
  }
}

const OWN_FIELDS = { statsIntervalS: STATS_INTERVAL_FIELD };

/** Checks the options of one start, and removes those that only this library has. */
function gather(
  host: FileHost,
  start: StartOptions,
  fields: OptionFields,
  missing: ReadonlyMap<string, string>,
) {
  const { values: all, nameField } = gatherOptions(
    { ...fields, ...OWN_FIELDS },
    start,
    (path) => readFile(host, path),
    missing,
  );
  const { statsIntervalS, ...values } = all;
  return { values, nameField, own: checkFields(OWN_FIELDS, { statsIntervalS }, nameField) };
}

const CARRIER_FIELD = embeddersOwn<true>((value) => value === true, "functions");

function checkLocal(host: FileHost, start: StartOptions): object {
  const gathered = gather(host, start, UDP_LOCAL_FIELDS, MISSING_OF_LOCAL);
  const { nameField, own } = gathered;
  const values = { ...gathered.values, carrier: start.hasCarrier };
  const platform = {
    fields: { ...UDP_LOCAL_FIELDS, carrier: CARRIER_FIELD },
    findTlsProblem: (tls: TlsOptions) => findTlsFilesProblem(host, tls),
  };
  // Without a SOCKS5 server, there may still be associations without sockets.
  const hasAssociations = gathered.values.listen === false;
  const options = resolveUdpLocal(platform, values, nameField, hasAssociations);
  checkOffered(options, nameField);
  return { ...options, ...own };
}

/** Stands in for functions of the embedder or of the instance. */
const PACKETS = { start: () => {}, write: () => {} };

function tun2SocksPlatform(host: FileHost) {
  const tunnelFields = { ...UDP_LOCAL_FIELDS, carrier: CARRIER_FIELD };
  return {
    fields: { ...TUN2SOCKS_FIELDS, carrier: CARRIER_FIELD },
    tunnel: { fields: tunnelFields, findTlsProblem: (tls: TlsOptions) => findTlsFilesProblem(host, tls) },
    interfaceIpv4: (name: string) => host.interfaceIpv4?.(name),
  };
}

function checkTun2Socks(host: FileHost, start: StartOptions): ResolvedTun2SocksOptions {
  const gathered = gather(host, start, TUN2SOCKS_FIELDS, MISSING_OF_TUN2SOCKS);
  const { nameField, own } = gathered;
  const values = {
    ...gathered.values,
    carrier: start.hasCarrier,
    ...(start.hasPackets === true && { device: PACKETS }),
  };
  if (start.hasPackets === true && gathered.values.device !== undefined) {
    throw wrong(nameField(["device"]), "packets are passed by functions: give only one");
  }
  if (gathered.values.device === "pipe:") {
    throw wrong(nameField(["device"]), "pipe: is available only in the program: pass packets by functions");
  }
  const options = resolveTun2Socks(tun2SocksPlatform(host), values, nameField);
  checkOffered(options.tunnel, nameField);
  return { ...options, ...own };
}

const CHECK = { local: checkLocal, server: checkServer, tun2socks: checkTun2Socks };

function checkServer(host: FileHost, start: StartOptions): object {
  const { values, nameField, own } = gather(host, start, UDP_SERVER_FIELDS, MISSING_OF_SERVER);
  const platform = { fields: UDP_SERVER_FIELDS, findDecoyProblem: () => undefined };
  const options = resolveUdpServer(platform, values, nameField);
  checkOffered(options, nameField);
  return { ...options, ...own, inner: innerTun2Socks(host, options) };
}

/** The options of the egress's tun2socks in the same instance; undefined for any other egress. */
function innerTun2Socks(
  host: FileHost,
  { egress, idleTimeoutS, latency }: ResolvedUdpServerOptions,
): ResolvedTun2SocksOptions | undefined {
  const way = parseEgress(egress);
  if (way?.kind !== "tun2socks") return undefined;
  const input = { device: PACKETS, udpVia: way.udpVia, mtu: INNER_MTU, idleTimeoutS, latency };
  return resolveTun2Socks(tun2SocksPlatform(host), input);
}

Object.assign(globalThis, { underpassCheck });
