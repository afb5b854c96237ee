import { HostError } from "../core/errors.ts";
import type { CHost, Instance, StartFailure } from "./c-host.ts";
import { decodeChecked } from "./options/checked-options.ts";
import { withStatsLog } from "./stats/stats-log.ts";

/** Makes a program available to capi/src/instance.c; each program is a script of its own. */
export function offerStart<Options>(start: (host: CHost, options: Options) => Instance): void {
  /** @param checked  the result of underpassCheck */
  const underpassStart = (host: CHost, checked: string): Instance | StartFailure => {
    try {
      const { statsIntervalS, ...options } = decodeChecked(checked);
      const instance = start(host, options);
      return statsIntervalS === undefined ? instance : withStatsLog(host, instance, statsIntervalS);
    } catch (error) {
      if (error instanceof HostError) return { status: error.status, text: error.message };
      throw error;
    }
  };
  Object.assign(globalThis, { underpassStart });
}
