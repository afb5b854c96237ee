// Network namespaces and a folder that disappear with this process, however it ends.
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Ends what runs in the namespaces, and removes them and the folder, once its input ends. */
const UNDERTAKER = `
  cat >/dev/null
  rm -rf "$1"; shift
  for host in "$@"; do
    while pids=$(ip netns pids "$host") && [ -n "$pids" ]; do kill -9 $pids; done 2>/dev/null
    ip netns del "$host"
  done 2>/dev/null`;

/** @param {string[]} names @returns {{ folder: string, remove: () => Promise<void> }} */
export function makeNamespaces(names) {
  const folder = mkdtempSync(join(tmpdir(), "underpass-bench-"));
  const child = spawn("sh", ["-c", UNDERTAKER, "sh", folder, ...names], {
    detached: true,
    stdio: ["pipe", "ignore", "ignore"],
  });
  child.unref();
  /** @type {import("node:net").Socket} */ (child.stdin).unref();
  for (const name of names) {
    execFileSync("ip", ["netns", "add", name]);
    execFileSync("ip", ["-n", name, "link", "set", "lo", "up"]);
  }
  const remove = async () => {
    const gone = once(child, "exit");
    child.ref();
    child.stdin?.end();
    await gone;
  };
  return { folder, remove };
}
