// `npm run package`: makes a Debian package and an npm tarball in build/packages/, with the native module built for this machine
// and for others whose compilers are installed. Fetches nothing. See docs/operate/packages.md.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { buildDebianPackage } from "./package/debian.mjs";
import { makePrebuilds } from "./package/prebuilds.mjs";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));

/** @param {string} command @param {string[]} args */
function run(command, args) {
  const { status } = spawnSync(command, args, { stdio: ["ignore", "ignore", "inherit"] });
  if (status !== 0) process.exit(status ?? 1);
}

const OUTPUT = "build/packages";
if (!existsSync("dist/cli/manual/programs.js")) run("node", ["scripts/build.mjs"]);
rmSync(OUTPUT, { recursive: true, force: true });
mkdirSync(OUTPUT, { recursive: true });
for (const path of makePrebuilds()) console.log(path);
if (spawnSync("dpkg-deb", ["--version"], { stdio: "ignore" }).status === 0) {
  console.log(await buildDebianPackage(OUTPUT));
} else console.warn("package: no dpkg-deb, so no Debian package");
run("npm", ["pack", "--ignore-scripts", "--pack-destination", OUTPUT]);
console.log(`${OUTPUT}/*.tgz`);
