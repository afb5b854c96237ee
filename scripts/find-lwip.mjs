// Where lwIP's sources are, for what compiles native/io: a submodule, or what third-party.mjs has unpacked, which is run when there
// is neither.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("..", import.meta.url));

/** @returns {string | undefined} */
const standing = () =>
  ["third_party/lwip", "build/third-party/lwip"]
    .map((folder) => join(ROOT, folder))
    .find((folder) => existsSync(join(folder, "src/core/tcp.c")));

/** @returns {string | undefined} the folder; undefined where it cannot be had */
export function findLwip() {
  if (standing() === undefined)
    spawnSync("node", [join(ROOT, "scripts/third-party.mjs"), "lwip"], { stdio: "ignore" });
  return standing();
}

/** @returns {readonly string[]} flags for a compiler; none where lwIP is missing, and then there is no TCP stack */
export function lwipFlags() {
  const lwip = findLwip();
  if (lwip === undefined) return [];
  return ["-DUNDERPASS_LWIP", `-I${join(ROOT, "native/lwip")}`, `-I${lwip}/src`, `-I${lwip}/src/include`];
}
