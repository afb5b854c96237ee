import { readFileSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { HostError, UsageError } from "../core/errors.ts";

const GROUP_OR_OTHERS = 0o077;

/**
 * The bytes of a file, without one newline at the end.
 *
 * @throws HostError ERR_FILE when it cannot be read
 */
export function readSecretFile(path: string): Uint8Array {
  const bytes = readFile(path);
  return bytes.at(-1) === 0x0a ? bytes.subarray(0, bytes.at(-2) === 0x0d ? -2 : -1) : bytes;
}

/**
 * Reads one line `USER:PASSWORD`; the password may hold colons.
 *
 * @throws HostError ERR_FILE when the file cannot be read, UsageError ERR_OPTION when there is no colon
 */
export function readCredentialsFile(path: string): { user: string; password: string } {
  const text = Buffer.from(readSecretFile(path)).toString("utf8");
  const colon = text.indexOf(":");
  if (colon < 0 || text.includes("\n")) {
    throw new UsageError("ERR_OPTION", `${path}: expected one line USER:PASSWORD`);
  }
  return { user: text.slice(0, colon), password: text.slice(colon + 1) };
}

/** True when others than the owner may read or write the file. */
export function isExposed(path: string): boolean {
  // A credential of systemd shows the mask of its access list as the group's permission.
  if (dirname(path) === process.env.CREDENTIALS_DIRECTORY) return false;
  return (statSync(path).mode & GROUP_OR_OTHERS) !== 0;
}

/** @throws HostError ERR_FILE */
export function readFile(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (cause) {
    throw new HostError("ERR_FILE", `${path}: ${(cause as NodeJS.ErrnoException).code}`, { cause });
  }
}
