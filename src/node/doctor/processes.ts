import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import type { LocalProgram } from "../../host/doctor/examined.ts";

/** The processes of this machine that the system shows to this user, by their ids, which are text. */
export function processIds(): string[] {
  return namesIn("/proc").filter((name) => /^\d+$/.test(name));
}

export function programOf(pid: string): LocalProgram {
  const words = textOf(`/proc/${pid}/cmdline`)
    .split("\0")
    .filter((word) => word !== "");
  return { name: textOf(`/proc/${pid}/comm`).trim(), pid: Number(pid), arguments: words.slice(1) };
}

/** The names in a folder; none if it cannot be read. */
export function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

/** The target of a symbolic link; empty if it cannot be read. */
export function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}

/** The text of a file; empty if it cannot be read. */
export function textOf(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
