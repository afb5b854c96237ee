import type { EventEmitter } from "node:events";
import { closeSync, writeSync } from "node:fs";
import { HostError } from "../core/errors.ts";
import type { Logger } from "../host/log.ts";
import type { NotReady } from "../node/admin/admin-server.ts";

/** Whether a program does its work, for those who send it work or restart it. */
export class Readiness {
  readonly #hasSession: () => boolean;
  #hasFailedListener = false;
  #isClosing = false;

  /** @param hasSession  whether it has a session, or needs none */
  constructor(running: EventEmitter, hasSession: () => boolean) {
    this.#hasSession = hasSession;
    running.on("listener-failed", () => {
      this.#hasFailedListener = true;
    });
  }

  handleClosing(): void {
    this.#isClosing = true;
  }

  /** @returns undefined if it is ready */
  reasonAgainst(): NotReady | undefined {
    if (this.#isClosing) return "closing";
    if (this.#hasFailedListener) return "a listener has failed";
    return this.#hasSession() ? undefined : "no session";
  }
}

/** Writes one line to a descriptor that the parent waits on, and closes it. @throws HostError ERR_FILE */
export function writeReadyFd(fd: number, line: string): void {
  try {
    writeSync(fd, line);
    // The standard streams stay open: otherwise their numbers could be reused, and later output would go to the wrong file.
    if (fd > 2) closeSync(fd);
  } catch (cause) {
    throw new HostError("ERR_FILE", `--ready-fd ${fd}: ${(cause as Error).message}`, { cause });
  }
}

/**
 * Notifies systemd if it waits for that. Node has no Unix datagram sockets, so systemd's own program sends the notification, for which the
 * unit needs `NotifyAccess=all`.
 */
export function notifySystemd(state: "READY=1" | "STOPPING=1", log: Logger): void {
  if (!process.env.NOTIFY_SOCKET) return;
  const { execFile } = process.getBuiltinModule("node:child_process");
  execFile("systemd-notify", [state], { timeout: 10_000 }, (error) => {
    if (error !== null) log.warn({ state, error: error.message }, "cannot notify systemd");
  });
}
