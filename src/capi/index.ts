import { HostError } from "../core/errors.ts";
import type { CHost, Instance, StartFailure, StartOptions } from "./c-host.ts";
import { startLocal } from "./local.ts";
import { decodeChecked } from "./options/checked-options.ts";
import { startServer } from "./server.ts";
import { withStatsLog } from "./stats/stats-log.ts";
import { startTun2Socks } from "./tun2socks.ts";

const START = { local: startLocal, server: startServer, tun2socks: startTun2Socks };

/** What capi/src/instance.c calls. @param checked  what underpassCheck returned */
function underpassStart(
  host: CHost,
  program: StartOptions["program"],
  checked: string,
): Instance | StartFailure {
  try {
    const { statsIntervalS, ...options } = decodeChecked(checked);
    const instance = START[program](host, options);
    return statsIntervalS === undefined ? instance : withStatsLog(host, instance, statsIntervalS);
  } catch (error) {
    if (error instanceof HostError) return { status: error.status, text: error.message };
    throw error;
  }
}

Object.assign(globalThis, { underpassStart });
