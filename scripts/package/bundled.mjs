// What the programs in dist/cli/ are bundled from, and under which terms.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/**
 * @param {readonly string[]} more  packages that are not bundled, but go along
 * @returns {{ name: string, license: string, text: string }[]}
 */
export function bundledPackages(more) {
  /** @type {string[]} */
  const bundled = JSON.parse(readFileSync("dist/cli/bundled-packages.json", "utf8"));
  return [...bundled, ...more].sort().map((name) => {
    const folder = join("node_modules", name);
    /** @type {{ license: string }} */
    const { license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    const file = readdirSync(folder).find((entry) => /^(licen[cs]e|copying)(\.(md|txt))?$/i.test(entry));
    const path = file === undefined ? join(folder, "README.md") : join(folder, file);
    if (!existsSync(path)) throw new Error(`${name}: no text of its licence`);
    const text = readFileSync(path, "utf8");
    return { name, license, text: file === undefined ? text.slice(text.search(/^#+ licen[cs]e/im)) : text };
  });
}
