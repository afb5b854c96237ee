import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative, resolve } from "node:path";
import { afterAll, describe, expect, it } from "vitest";

const ROOT = resolve(import.meta.dirname, "../../..");
const SOURCES = join(ROOT, "src");

interface Script {
  readonly name: string;
  readonly imports: readonly string[];
  readonly sources: readonly string[];
}

const folder = mkdtempSync(join(tmpdir(), "underpass-scripts-"));
execFileSync("node", [join(ROOT, "scripts/bundle/capi.mjs"), folder], { cwd: ROOT });
const { parts, scripts } = JSON.parse(readFileSync(join(folder, "scripts.json"), "utf8")) as {
  readonly parts: readonly string[];
  readonly scripts: readonly Script[];
};
afterAll(() => rmSync(folder, { recursive: true }));

/** The sources in src/ that an instance loads at its start. */
function sourcesOf(role: string): string[] {
  const names = new Set([`${role}.js`]);
  // Iterating a set includes elements that are added meanwhile.
  for (const name of names) {
    for (const imported of scripts.find((script) => script.name === name)!.imports) names.add(imported);
  }
  return scripts
    .filter(({ name }) => names.has(name))
    .flatMap(({ sources }) => sources)
    .filter((source) => !source.startsWith("part:"))
    .map((source) => relative(SOURCES, resolve(ROOT, source)));
}

const OPTIONAL = [
  "capi/tls.ts",
  "core/dialects/",
  "core/masque/",
  "core/simple-obfs/",
  "core/web-socket/",
  "host/tap/tap-writer.ts",
  "wire/dialects/gost.ts",
  "@noble/hashes",
];

describe("the scripts of the C library", () => {
  it.each([
    ["local", "core/client/client.ts", ["core/server/", "core/tun2socks/", "host/socks5/"]],
    ["server", "core/server/server.ts", ["core/client/client.ts", "core/tun2socks/", "host/carriers/"]],
    ["tun2socks", "core/tun2socks/tun2socks.ts", ["core/server/", "core/shadowsocks/server.ts"]],
  ])(
    "%s contains its own sources, but not those of other programs or of features that it does not use",
    (role, own, others) => {
      const sources = sourcesOf(role);
      expect(sources).toContain(own);
      expect(
        sources.filter((source) => [...OPTIONAL, ...others].some((part) => source.includes(part))),
      ).toEqual([]);
    },
  );

  it.each(parts)("%s exports only functions, because calling one of them loads it", async (part) => {
    const exported = Object.values(await import(join(SOURCES, part)));
    expect(exported.length).toBeGreaterThan(0);
    for (const value of exported) {
      expect(value).toBeTypeOf("function");
      expect(String(value)).not.toMatch(/^class\b/);
    }
  });

  it("each part is a script", () => {
    const names = scripts.map(({ name }) => name);
    for (const part of parts) expect(names).toContain(`${part.replace(".ts", "").replaceAll("/", "-")}.js`);
  });
});
