import type { LocalProgram } from "../../host/doctor/examined.ts";
import { linkOf, namesIn, processIds, programOf, textOf } from "./processes.ts";

/** The state LISTEN in /proc/net/tcp. */
const LISTENING = "0A";

/** The program that listens on a TCP port of this machine; undefined if the system does not show it to this user. */
export function findListener(port: number): LocalProgram | undefined {
  const inodes = new Set(["tcp", "tcp6"].flatMap((table) => inodesOf(table, port)));
  if (inodes.size === 0) return undefined;
  for (const pid of processIds()) {
    for (const descriptor of namesIn(`/proc/${pid}/fd`)) {
      const inode = /^socket:\[(\d+)\]$/.exec(linkOf(`/proc/${pid}/fd/${descriptor}`))?.[1];
      if (inode !== undefined && inodes.has(inode)) return programOf(pid);
    }
  }
  return undefined;
}

function inodesOf(table: string, port: number): string[] {
  const hex = port.toString(16).toUpperCase().padStart(4, "0");
  return textOf(`/proc/net/${table}`)
    .split("\n")
    .map((line) => line.trim().split(/\s+/))
    .filter(([, local, , state]) => local?.endsWith(`:${hex}`) === true && state === LISTENING)
    .map((columns) => columns[9]);
}
