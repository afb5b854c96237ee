import type { Bench } from "../bench.ts";
import { finding } from "../findings.ts";
import type { Check, Result } from "./check.ts";

const SETTLE_MS = 2_000;

/** Waits for the requested lanes. */
export const LANES_CHECK: Check<Bench> = {
  name: "lanes",
  needs: ["upgrade"],
  async run({ session, options }): Promise<Result> {
    const { core } = session!.host;
    const wanted = options.lanes === "auto" ? 1 : options.lanes;
    await session!.until(() => core.lanesUp >= wanted, SETTLE_MS);
    const measured = `${core.lanesUp} of ${options.lanes === "auto" ? `${core.lanesUp} (auto)` : wanted} up`;
    const error = session!.errors.at(-1);
    const evidence = [measured, error === undefined ? undefined : `last failure: ${error.message}`];
    return {
      measured,
      data: { up: core.lanesUp, wanted: options.lanes },
      findings: core.lanesUp < wanted ? [finding("lanes-missing", evidence)] : [],
    };
  },
};

/** A heartbeat to the server and back. */
export const ROUND_TRIP_CHECK: Check<Bench> = {
  name: "round trip",
  needs: ["upgrade"],
  async run({ session, settings }): Promise<Result> {
    const { core } = session!.host;
    await session!.until(() => core.rttMs !== undefined, settings.testTimeoutMs);
    if (core.rttMs !== undefined) {
      const rttMs = Math.round(core.rttMs * 10) / 10;
      return { measured: `${rttMs} ms to udp-server and back`, data: { rttMs } };
    }
    const evidence = [
      `no heartbeat was answered within ${settings.testTimeoutMs} ms`,
      session!.errors.at(-1)?.message,
    ];
    return { measured: "none", findings: [finding("heartbeat-lost", evidence)] };
  },
};
