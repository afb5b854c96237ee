import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import type { NativeModule } from "../host/io/native-module.ts";

const DIRECTORY = fileURLToPath(new URL("../../native", import.meta.url));

let loaded: NativeModule | Error | undefined;

/** The module, or the reason why it cannot be loaded. */
export function loadNativeModule(): NativeModule | Error {
  if (loaded !== undefined) return loaded;
  try {
    const require = createRequire(import.meta.url);
    const load = require("node-gyp-build") as (directory: string) => NativeModule;
    loaded = load(DIRECTORY);
  } catch (error) {
    loaded = error as Error;
  }
  return loaded;
}
