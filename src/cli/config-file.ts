import { dirname } from "node:path";
import { UsageError } from "../core/errors.ts";
import type { ConfigText } from "../host/options/config-text.ts";
import { parseConfigText } from "../host/options/config-text.ts";
import { readTextFile } from "../node/text-file.ts";
import { beforeReading } from "./early-signals.ts";

/** An object of options, read from a file. */
export interface ConfigFile extends ConfigText {
  /** Relative paths in the file start here. */
  readonly folder: string;
}

/**
 * Reads a config file: JSON in UTF-8 with comments (line and block) and trailing commas.
 *
 * @param names  the members it may have; undefined for any
 * @throws UsageError ERR_OPTION with file, line and column; HostError ERR_FILE when the file cannot be read
 */
export function readConfigFile(path: string, names: ReadonlySet<string> | undefined): ConfigFile {
  return { ...parseConfigText(path, readConfigText(path), names), folder: dirname(path) };
}

/** @throws UsageError ERR_OPTION when the file is not UTF-8; HostError ERR_FILE when it cannot be read */
export function readConfigText(path: string): string {
  beforeReading(path);
  return decodeText(path, readTextFile(path));
}

/** @throws UsageError ERR_OPTION that names the file */
export function decodeText(path: string, bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new UsageError("ERR_OPTION", `${path}: is not UTF-8`);
  }
}
