import { readFileSync } from "node:fs";
import { HostError, UsageError } from "../core/errors.ts";
import { systemReason } from "./system-text.ts";

/**
 * Reads a file that a person may have edited, without the byte-order mark (EF BB BF) that some editors put first.
 *
 * @throws HostError ERR_FILE when it cannot be read, UsageError ERR_OPTION when it is UTF-16
 */
export function readTextFile(path: string): Buffer {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (cause) {
    throw new HostError("ERR_FILE", `${path}: ${systemReason(cause)}`, { cause });
  }
  if (isUtf16(bytes)) throw new UsageError("ERR_OPTION", `${path}: is UTF-16: save it as UTF-8`);
  return bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? bytes.subarray(3) : bytes;
}

/** PowerShell writes UTF-16 by default. A random key may begin with the same mark, so the next letter is checked too. */
function isUtf16(bytes: Uint8Array): boolean {
  const isLittle = bytes[0] === 0xff && bytes[1] === 0xfe && bytes[3] === 0;
  const isBig = bytes[0] === 0xfe && bytes[1] === 0xff && bytes[2] === 0;
  return bytes.length % 2 === 0 && (isLittle || isBig);
}
