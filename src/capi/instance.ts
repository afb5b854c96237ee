import { ERROR_CODES, HostError, ProtocolError, UsageError } from "../core/errors.ts";
import type { TunnelStats } from "../host/stats/tunnel-stats.ts";
import type { CHost, EventKind, Instance } from "./c-host.ts";
import { statsArray } from "./stats/stats.ts";

/** One end, as this directory uses it. */
interface End {
  listen(): Promise<void>;
  close(): Promise<void>;
  stats(): TunnelStats;
}

/** The number by which C knows an error. */
function statusOf(error: unknown): number {
  const isOurs = error instanceof HostError || error instanceof ProtocolError || error instanceof UsageError;
  return isOurs ? error.status : -ERROR_CODES.ERR_INTERNAL.number;
}

/** Reports an event that has a reason. @param error  undefined for an orderly end */
export function report(host: CHost, kind: EventKind, error: Error | undefined): void {
  if (error === undefined) host.event(kind, 0, "");
  else host.event(kind, statusOf(error), error.message);
}

/** Starts listening, reports that to the owner, and returns what the owner may do with the end. */
export function runEnd(host: CHost, end: End, onReady: () => void): Instance & { fail(error: Error): void } {
  let isStopping = false;
  const stopWith = (status: number) => {
    isStopping = true;
    void end.close().then(() => host.stopped(status));
  };
  const listening = end.listen().then(
    () => {
      if (!isStopping) onReady();
    },
    (error: Error) => {
      if (isStopping) return;
      isStopping = true;
      report(host, "error", error);
      host.stopped(statusOf(error));
    },
  );
  // Any failure in it is a fault, which ends the instance.
  void listening;
  return {
    stop: () => {
      if (!isStopping) stopWith(0);
    },
    fail: (error) => {
      if (isStopping) return;
      report(host, "error", error);
      stopWith(statusOf(error));
    },
    stats: () => statsArray(end.stats()),
    report: () => JSON.stringify(end.stats()),
  };
}
