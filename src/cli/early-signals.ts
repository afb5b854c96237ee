import { statSync } from "node:fs";

export const CLOSING_SIGNALS = ["SIGTERM", "SIGINT"] as const;

/** For each of these signals, the handlers of bin/ while they stand. */
let early: readonly NodeJS.SignalsListener[][] = [];

/** Takes note of the handlers that bin/ has added, which are the only ones so far. */
export function noteEarlyHandlers(): void {
  early = CLOSING_SIGNALS.map((signal) => process.listeners(signal) as NodeJS.SignalsListener[]);
}

/** Removes the handlers of bin/, so that the signals have their usual effect or that of other handlers. */
export function dropEarlyHandlers(): void {
  early.forEach((listeners, i) => {
    for (const listener of listeners) process.off(CLOSING_SIGNALS[i], listener);
  });
  early = [];
}

/** To be called before a file is read: if the program waits for a pipe or a terminal, no handler runs, so a signal would have no effect. */
export function beforeReading(path: string): void {
  if (early.length > 0 && mayBlock(path)) dropEarlyHandlers();
}

function mayBlock(path: string): boolean {
  try {
    return !statSync(path).isFile();
  } catch {
    // Reading it reports why.
    return false;
  }
}
