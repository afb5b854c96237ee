import type { ChildProcess } from "node:child_process";
import { spawn } from "node:child_process";
import { on, once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, it } from "vitest";
import type { ProgramName } from "../../support/hosts.ts";
import { programFile } from "../../support/hosts.ts";

/** Modules of Node that take half a megabyte or more each. */
const HEAVY = ["http", "http2", "https", "tls"].map((name) => `NativeModule ${name}`);
/** Modules that load only for an option, a command or a peer. */
const OPTIONAL =
  /\/node\/(admin|doctor)\/|\/host\/doctor\/|\/cli\/(admin-client|doctor)\.|\/node\/web\/(stranger|decoy-)|\/core\/tun2socks\/|\/prom-client\/|\/send\//;
/** Above this length Node stores a module's text with two bytes for each character (EXTERN_APEX in src/string_bytes.cc). */
const MAX_ONE_BYTE_LENGTH = 0xfbee9;

const HOOKS = `
import { appendFileSync } from "node:fs";
export function load(url, context, next) {
  if (url.includes("/dist/")) appendFileSync(process.env.LOADED, url + "\\n");
  return next(url, context);
}`;
const PRELOADED = `
import { register } from "node:module";
register("./hooks.mjs", import.meta.url);
process.on("SIGUSR2", () => process.stdout.write(JSON.stringify(process.moduleLoadList) + "\\n"));`;

let folder: string;
const children: ChildProcess[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "underpass-loaded-"));
  writeFileSync(join(folder, "hooks.mjs"), HOOKS);
  writeFileSync(join(folder, "preloaded.mjs"), PRELOADED);
});

afterEach(async () => {
  for (const child of children.splice(0)) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    child.kill("SIGKILL");
    await once(child, "exit");
  }
  rmSync(folder, { recursive: true, force: true });
});

it("programs that only have a session load no modules for other features", async () => {
  const server = start("udp-server", "--listen", "127.0.0.1:0", "--allow", "127.0.0.0/8");
  const { listen } = await server.nextLine<{ listen: string[] }>('"ready"');
  const local = start("udp-local", "--server", listen[0], "--listen", "127.0.0.1:0");
  await local.nextLine("session up");
  for (const { name, child } of [server, local]) {
    const files = readFileSync(join(folder, name), "utf8").trimEnd().split("\n");
    // The other chunks only re-export, and the program's own file only imports it.
    const isFull = (file: string) => sourcesOf(file).some((source) => !source.includes("/cli/bin/"));
    const full = files.map((url) => fileURLToPath(url)).filter(isFull);
    expect(full, "the chunks that are loaded").toHaveLength(1);
    expect(readFileSync(full[0]).length).toBeLessThan(MAX_ONE_BYTE_LENGTH);
    expect(sourcesOf(full[0])).toContain("../../src/core/session/tunnel.ts");
    expect(sourcesOf(full[0]).filter((source) => OPTIONAL.test(source))).toEqual([]);
    const nodeModules = await nodeModulesOf(child);
    expect(nodeModules).toContain("NativeModule net");
    expect(nodeModules.filter((module) => HEAVY.includes(module))).toEqual([]);
  }
});

/** Starts a program that records the modules that it loads. */
function start(name: ProgramName, ...options: string[]) {
  const child = spawn(
    process.execPath,
    ["--import", join(folder, "preloaded.mjs"), programFile(name), ...options, "--log-format", "json"],
    { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, LOADED: join(folder, name) } },
  );
  children.push(child);
  const lines = createInterface({ input: child.stderr });
  return {
    name,
    child,
    /** The next log line that contains the text. */
    nextLine: async <Line>(text: string): Promise<Line> => {
      for await (const [line] of on(lines, "line", { close: ["close"] })) {
        if ((line as string).includes(text)) return JSON.parse(line) as Line;
      }
      throw new Error(`${name} ended`);
    },
  };
}

/** The sources of a file of dist/. */
function sourcesOf(file: string): readonly string[] {
  const map = JSON.parse(readFileSync(`${file}.map`, "utf8")) as { sources: readonly string[] };
  return map.sources;
}

/** @returns names as in `process.moduleLoadList` */
async function nodeModulesOf(child: ChildProcess): Promise<readonly string[]> {
  const lines = createInterface({ input: child.stdout! });
  child.kill("SIGUSR2");
  const [line] = await once(lines, "line");
  return JSON.parse(line) as string[];
}
