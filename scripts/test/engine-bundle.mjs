import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

const STAND_INS = {
  vitest: "vitest.ts",
  "node:crypto": "node-crypto.ts",
  "node:net": "node-net.ts",
  "node:fs": "node-files.ts",
  "node:path": "node-files.ts",
};

/** @type {import("esbuild").Plugin} */
const standIns = {
  name: "stand-ins",
  setup(bundle) {
    bundle.onResolve({ filter: /^(vitest|node:.*)$/ }, ({ path }) => {
      const file = STAND_INS[/** @type {keyof typeof STAND_INS} */ (path)];
      return file === undefined ? { errors: [{ text: path }] } : { path: join(ROOT, "test/engine", file) };
    });
    bundle.onLoad({ filter: /\/test\/.*\.ts$/ }, async ({ path }) => {
      const text = await readFile(path, "utf8");
      return {
        contents: text.replaceAll("import.meta.dirname", JSON.stringify(dirname(path))),
        loader: "ts",
      };
    });
  },
};

/**
 * Bundles test files into one script that runs them in the engine of the C library.
 *
 * @param {readonly string[]} files  their paths from the root
 * @param {string} [outfile]  undefined: nothing is written
 * @returns {Promise<string[]>} what they need and the engine lacks, with the files that import it
 */
export async function bundleForEngine(files, outfile) {
  const imports = ["test/engine/globals.ts", "test/property-seed.ts", ...files].map(
    (file) => `import ${JSON.stringify(`./${file}`)};`,
  );
  try {
    await build({
      stdin: {
        contents: [...imports, 'import { runTests } from "vitest";', "await runTests();"].join("\n"),
        resolveDir: ROOT,
      },
      ...(outfile === undefined ? { write: false } : { outfile }),
      bundle: true,
      format: "esm",
      platform: "neutral",
      mainFields: ["module", "main"],
      target: "es2022",
      logLevel: "silent",
      plugins: [standIns],
    });
    return [];
  } catch (error) {
    const { errors } = /** @type {import("esbuild").BuildFailure} */ (error);
    return [...new Set(errors.map(({ text, location }) => `${location?.file}: ${text}`))];
  }
}
