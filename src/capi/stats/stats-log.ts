import { statsLine, summarize } from "../../host/stats/stats-line.ts";
import type { CHost, Instance } from "../c-host.ts";
import { cLogger } from "../log.ts";

/** Logs rates and drops at an interval in seconds, until the instance stops. */
export function withStatsLog(host: CHost, instance: Instance, intervalS: number): Instance {
  const log = cLogger(host);
  let timer = 0;
  let before = JSON.parse(instance.report());
  let readAt = host.now();
  const schedule = () => {
    timer = host.timerStart(intervalS * 1000, () => {
      const after = JSON.parse(instance.report());
      const now = host.now();
      const stats = summarize(before, after, (now - readAt) / 1000);
      before = after;
      readAt = now;
      log.info({ stats }, statsLine(stats));
      schedule();
    });
  };
  schedule();
  let isStopping = false;
  return {
    ...instance,
    stop: () => {
      if (!isStopping) host.timerCancel(timer);
      isStopping = true;
      instance.stop();
    },
  };
}
