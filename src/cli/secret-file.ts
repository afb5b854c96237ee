import { statSync } from "node:fs";
import { dirname } from "node:path";
import { UsageError } from "../core/errors.ts";
import { readTextFile } from "../node/text-file.ts";
import { beforeReading } from "./early-signals.ts";

const GROUP_OR_OTHERS = 0o077;
const BLANKS = new Set(Buffer.from(" \t\r\n"));

/**
 * The bytes of a file, without a byte-order mark and without blanks and newlines at the end, which editors add.
 *
 * @throws HostError ERR_FILE when it cannot be read, UsageError ERR_OPTION when it is UTF-16
 */
export function readSecretFile(path: string): Uint8Array {
  beforeReading(path);
  const bytes = readTextFile(path);
  let end = bytes.length;
  while (end > 0 && BLANKS.has(bytes[end - 1])) end--;
  return bytes.subarray(0, end);
}

/**
 * Reads one line `USER:PASSWORD`; the password may contain colons.
 *
 * @throws HostError ERR_FILE when the file cannot be read, UsageError ERR_OPTION when there is no colon
 */
export function readCredentialsFile(path: string): { user: string; password: string } {
  const text = Buffer.from(readSecretFile(path)).toString("utf8");
  const colon = text.indexOf(":");
  if (colon < 0 || /[\r\n]/.test(text)) {
    throw new UsageError("ERR_OPTION", `${path}: expected one line USER:PASSWORD`);
  }
  return { user: text.slice(0, colon), password: text.slice(colon + 1) };
}

/** True if anyone but the owner can read or write the file. */
export function isExposed(path: string): boolean {
  // The mode of a systemd credential shows the mask of its access list as the group's permission.
  if (dirname(path) === process.env.CREDENTIALS_DIRECTORY) return false;
  return (statSync(path).mode & GROUP_OR_OTHERS) !== 0;
}
