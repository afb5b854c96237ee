import type { Logger } from "../host/log.ts";
import { silentLogger } from "../host/log.ts";
import type { CHost } from "./c-host.ts";

/** Passes log lines to the owner of the instance, if it has a callback for them. */
export function cLogger(host: CHost): Logger {
  if (!host.hasLog) return silentLogger;
  const atLevel = (level: number) => (fields: object, message: string) =>
    host.log(level, message, JSON.stringify(fields));
  return { debug: atLevel(0), info: atLevel(1), warn: atLevel(2), error: atLevel(3) };
}
