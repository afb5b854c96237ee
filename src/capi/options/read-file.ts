import { HostError } from "../../core/errors.ts";
import { systemErrorCode } from "../../host/system-error.ts";
import type { FileHost } from "../c-host.ts";

/** @throws HostError ERR_FILE that names the file */
export function readFile(host: FileHost, path: string): Uint8Array {
  try {
    return host.readFile(path);
  } catch (cause) {
    // Its message begins with the name of the call.
    const reason = (cause as Error).message.replace(/^\w+: /, "");
    throw new HostError("ERR_FILE", `${path}: ${reason} (${systemErrorCode(cause)})`, { cause });
  }
}
