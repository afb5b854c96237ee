import { statsLine, summarize } from "../../host/stats/stats-line.ts";
import type { AdminStatus } from "../../node/admin/admin-server.ts";

/** What `status` prints. @param before  an earlier answer, for rates; undefined for none */
export function statusText(
  status: AdminStatus,
  before?: { readonly status: AdminStatus; readonly seconds: number },
): string {
  const { program, version, isReady, uptimeS, stats, sessions, sessionsLeftOut, explained } = status;
  const head = `${program} ${version}, ${isReady ? "ready" : "not ready"}, up ${duration(uptimeS)}`;
  const now = [
    `sessions ${stats.sessions}, lanes ${stats.lanes}, associations ${stats.associations}, contexts ${stats.contexts}, rtt ${milliseconds(stats.rttMs)}`,
    `in  ${stats.datagramsIn} datagrams, ${stats.bytesIn} bytes`,
    `out ${stats.datagramsOut} datagrams, ${stats.bytesOut} bytes`,
  ];
  const rates =
    before === undefined ? [] : [statsLine(summarize(before.status.stats, stats, before.seconds))];
  const lines = [head, ...now, ...rates];
  if (sessions.length > 0) lines.push("", ...sessions.flatMap(sessionLines));
  if (sessionsLeftOut > 0) lines.push(`and ${sessionsLeftOut} more sessions`);
  for (const { of, reason, count, meaning, remedy } of explained) {
    if (of === "spread.counts") continue;
    lines.push("", `${of} ${reason} ${count}`, `  ${meaning}${remedy === "" ? "" : ` ${remedy}`}`);
  }
  return `${lines.map(printable).join("\n")}\n`;
}

function sessionLines({
  session,
  kind,
  state,
  associations,
  lanes,
}: AdminStatus["sessions"][number]): string[] {
  const held = lanes.filter((lane) => lane.state === "held").length;
  return [
    `session ${session}: ${kind}, ${state}, associations ${associations}`,
    ...lanes
      .filter((lane) => lane.state !== "held")
      .map(
        ({ lane, state: laneState, rttMs, isLate, carrier }) =>
          `  lane ${lane}: ${laneState}${isLate ? ", late" : ""}, rtt ${milliseconds(rttMs)}, ${carrier}`,
      ),
    ...(held === 0 ? [] : [`  ${held} more held back until they help`]),
  ];
}

function milliseconds(value: number | undefined): string {
  return value === undefined ? "-" : `${value.toFixed(1)} ms`;
}

function duration(seconds: number): string {
  if (seconds < 120) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 120) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h` : `${Math.floor(hours / 24)} days`;
}

/** A server's bytes must not control the terminal. */
function printable(line: string): string {
  return line.replace(/[^\x20-\x7e]/g, "?");
}
