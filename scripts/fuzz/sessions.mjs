// `npm run fuzz`: runs both ends of a session in one process through random events. `npm run fuzz:hostile`: hostile peers against a
// server, a client, and the SOCKS5 server of udp-local. `--help` lists the options.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { build } from "esbuild";

const isHostile = process.argv[2] === "hostile";
const folder = mkdtempSync(join(tmpdir(), "underpass-fuzz-"));
try {
  const outfile = join(folder, "fuzz.mjs");
  await build({
    entryPoints: [isHostile ? "test/hostile/main.ts" : "test/fuzz/main.ts"],
    outfile,
    bundle: true,
    format: "esm",
    platform: "node",
    target: "node20",
    sourcemap: "inline",
    logLevel: "warning",
  });
  process.setSourceMapsEnabled(true);
  const { main } = await import(pathToFileURL(outfile).href);
  process.exitCode = await main(process.argv.slice(isHostile ? 3 : 2));
} finally {
  rmSync(folder, { recursive: true });
}
