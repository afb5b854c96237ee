import { execFile } from "node:child_process";
import { closeSync, writeSync } from "node:fs";
import { HostError } from "../core/errors.ts";
import type { Logger } from "../node/log.ts";

/** Writes one line to a descriptor that the parent waits on, and closes it. @throws HostError ERR_FILE */
export function writeReadyFd(fd: number, line: string): void {
  try {
    writeSync(fd, line);
    // The standard streams stay: what is written to them later would end up in whatever takes their number.
    if (fd > 2) closeSync(fd);
  } catch (cause) {
    throw new HostError("ERR_FILE", `--ready-fd ${fd}: ${(cause as Error).message}`, { cause });
  }
}

/**
 * Tells systemd, when it waits for it. Node has no datagram sockets of the Unix domain, so that systemd's own program
 * does it; the unit needs `NotifyAccess=all` for that.
 */
export function notifySystemd(state: "READY=1" | "STOPPING=1", log: Logger): void {
  if (!process.env.NOTIFY_SOCKET) return;
  execFile("systemd-notify", [state], { timeout: 10_000 }, (error) => {
    if (error !== null) log.warn({ state, error: error.message }, "cannot notify systemd");
  });
}
