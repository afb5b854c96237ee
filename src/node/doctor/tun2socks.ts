import type { Step } from "../../host/doctor/checks/check.ts";
import { walk } from "../../host/doctor/checks/check.ts";
import { describeWays, diagnose } from "../../host/doctor/diagnose.ts";
import { Redaction } from "../../host/doctor/redaction.ts";
import type { DoctorSettings } from "../../host/doctor/settings.ts";
import type { Tun2SocksOptions } from "../options/tun2socks.ts";
import { resolveTun2SocksOptions } from "../options/tun2socks.ts";
import { CLOCK_CHECK } from "./clock-check.ts";
import { deviceCheck } from "./device-check.ts";
import { LIMITS_CHECK } from "./limits-check.ts";
import { routeCheck } from "./route-check.ts";
import { makeBench } from "./udp-local.ts";

/** Examines what tun2socks would do with these options. @throws UsageError */
export async function diagnoseTun2Socks(
  input: Tun2SocksOptions,
  settings: DoctorSettings,
  onBegin: (way: string, redaction: Redaction) => void,
  onStep: (step: Step) => void,
): Promise<void> {
  const options = resolveTun2SocksOptions(input);
  const { carrier: _, ...tunnel } = options.tunnel;
  const bench = makeBench(tunnel, settings);
  onBegin(options.usesTunnel ? describeWays(bench) : "no tunnel", new Redaction(tunnel, settings));
  const own = [LIMITS_CHECK, deviceCheck(options), routeCheck(options), CLOCK_CHECK];
  if (options.usesTunnel) await diagnose(own, bench, onStep);
  else await walk(own, bench, () => bench.system.now(), onStep);
}
