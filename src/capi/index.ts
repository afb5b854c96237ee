import { HostError } from "../core/errors.ts";
import type { CHost, Instance, StartFailure, StartOptions } from "./c-host.ts";
import { decodeChecked } from "./checked-options.ts";
import { startLocal } from "./local.ts";
import { startServer } from "./server.ts";
import { startTun2Socks } from "./tun2socks.ts";

const START = { local: startLocal, server: startServer, tun2socks: startTun2Socks };

/** What capi/src/instance.c calls. @param checked  what underpassCheck returned */
function underpassStart(
  host: CHost,
  program: StartOptions["program"],
  checked: string,
): Instance | StartFailure {
  try {
    return START[program](host, decodeChecked(checked));
  } catch (error) {
    if (error instanceof HostError) return { status: error.status, text: error.message };
    throw error;
  }
}

Object.assign(globalThis, { underpassStart });
