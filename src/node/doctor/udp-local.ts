import { formatEndpoint } from "../../host/addresses/endpoint.ts";
import type { Bench } from "../../host/doctor/bench.ts";
import type { Step } from "../../host/doctor/checks/check.ts";
import { describeWays, diagnose } from "../../host/doctor/diagnose.ts";
import { Redaction } from "../../host/doctor/redaction.ts";
import type { DoctorSettings } from "../../host/doctor/settings.ts";
import { silentLogger } from "../../host/log.ts";
import { parseMasqueProxy } from "../../host/masque/masque-option.ts";
import type { ResolvedUdpLocalOptions, ServerWay } from "../../host/options/udp-local.ts";
import { chooseIo } from "../io/io.ts";
import type { UdpLocalOptions } from "../options/udp-local.ts";
import { resolveUdpLocalOptions } from "../options/udp-local.ts";
import { nodeSystem } from "../system.ts";
import { CLOCK_CHECK } from "./clock-check.ts";
import { findListener } from "./find-listener.ts";
import { LIMITS_CHECK } from "./limits-check.ts";

/** Examines what udp-local would do with these options. @throws UsageError */
export async function diagnoseUdpLocal(
  input: UdpLocalOptions,
  settings: DoctorSettings,
  onBegin: (way: string, redaction: Redaction) => void,
  onStep: (step: Step) => void,
): Promise<void> {
  const { carrier: _, ...options } = resolveUdpLocalOptions(input);
  const bench = makeBench(options, settings);
  onBegin(describeWays(bench), new Redaction(options, settings));
  await diagnose([LIMITS_CHECK, CLOCK_CHECK], bench, onStep);
}

/** What the checks share, on Node. */
export function makeBench(options: ResolvedUdpLocalOptions, settings: DoctorSettings): Bench {
  return {
    options: { ...options, ways: options.masque === undefined ? options.ways : [wayToProxy(options)] },
    settings,
    system: nodeSystem(chooseIo(options.io, options.latency, silentLogger)),
    findListener,
    way: 0,
    addresses: [],
    session: undefined,
  };
}

/** A MASQUE proxy is where the server would be. */
function wayToProxy({ masque, ways }: ResolvedUdpLocalOptions): ServerWay {
  const { host, port } = parseMasqueProxy(masque!).endpoint;
  return { via: ways[0].via, server: formatEndpoint(host, port) };
}
