import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import type { LocalProgram } from "../../host/doctor/examined.ts";

/** The state LISTEN in /proc/net/tcp. */
const LISTENING = "0A";

/** The program that listens on a TCP port of this machine; undefined if the system does not show it to this user. */
export function findListener(port: number): LocalProgram | undefined {
  const inodes = new Set(["tcp", "tcp6"].flatMap((table) => inodesOf(table, port)));
  if (inodes.size === 0) return undefined;
  for (const name of list("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    for (const descriptor of list(`/proc/${name}/fd`)) {
      const inode = /^socket:\[(\d+)\]$/.exec(link(`/proc/${name}/fd/${descriptor}`))?.[1];
      if (inode === undefined || !inodes.has(inode)) continue;
      const words = text(`/proc/${name}/cmdline`)
        .split("\0")
        .filter((word) => word !== "");
      return { name: text(`/proc/${name}/comm`).trim(), pid: Number(name), arguments: words.slice(1) };
    }
  }
  return undefined;
}

function inodesOf(table: string, port: number): string[] {
  const hex = port.toString(16).toUpperCase().padStart(4, "0");
  return text(`/proc/net/${table}`)
    .split("\n")
    .map((line) => line.trim().split(/\s+/))
    .filter(([, local, , state]) => local?.endsWith(`:${hex}`) === true && state === LISTENING)
    .map((columns) => columns[9]);
}

function list(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function link(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}

function text(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
