import type { KeyOption } from "../host/options/keys.ts";
import { parseKeys } from "../host/options/keys.ts";
import { readTextFile } from "../node/text-file.ts";
import { decodeText } from "./config-file.ts";
import { beforeReading } from "./early-signals.ts";

/** Reads the file of `--keys`. @throws UsageError ERR_OPTION with file, line and column; HostError ERR_FILE when it cannot be read */
export function readKeysFile(path: string): KeyOption[] {
  beforeReading(path);
  return parseKeys(path, decodeText(path, readTextFile(path)));
}
