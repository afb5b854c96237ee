// Finds lwIP's sources for builds of native/io: the submodule, or what third-party.mjs has unpacked; runs that script if there is
// neither.
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

/** @returns {string | undefined} the folder; undefined if it is not available */
export function findLwip() {
  if (standing() === undefined)
    spawnSync("node", [join(ROOT, "scripts/third-party.mjs"), "lwip"], { stdio: "ignore" });
  return standing();
}

/** @returns {readonly string[]} flags for a compiler; none if lwIP is missing, and then there is no TCP stack */
export function lwipFlags() {
  const lwip = findLwip();
  if (lwip === undefined) return [];
  return ["-DUNDERPASS_LWIP", `-I${join(ROOT, "native/lwip")}`, `-I${lwip}/src`, `-I${lwip}/src/include`];
}
