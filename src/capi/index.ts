import { HostError } from "../core/errors.ts";
import type { CHost, Instance, StartFailure, StartOptions } from "./c-host.ts";
import { startLocal } from "./local.ts";
import { startServer } from "./server.ts";

/** What capi/src/instance.c calls. @param checked  what underpassCheck returned */
function underpassStart(
  host: CHost,
  program: StartOptions["program"],
  checked: string,
): Instance | StartFailure {
  const { psk, ...rest } = JSON.parse(checked);
  const options = { ...rest, psk: psk && Uint8Array.from(psk) };
  try {
    return program === "local" ? startLocal(host, options) : startServer(host, options);
  } catch (error) {
    if (error instanceof HostError) return { status: error.status, text: error.message };
    throw error;
  }
}

Object.assign(globalThis, { underpassStart });
