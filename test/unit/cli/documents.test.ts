import { readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { describe, expect, it } from "vitest";
import { PROGRAMS } from "../../../src/cli/manual/programs.ts";

const ROOT = join(import.meta.dirname, "../../..");
const DOCUMENTS = [
  ...readdirSync(ROOT).filter((name) => name.endsWith(".md")),
  ...readdirSync(join(ROOT, "docs"), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".md"))
    .map((name) => join("docs", name)),
  "bench/README.md",
];

function read(path: string): string {
  return readFileSync(join(ROOT, path), "utf8");
}

/** Anchors of a page's headings, as GitHub makes them. */
function anchorsOf(text: string): string[] {
  return [...text.matchAll(/^#{1,6} (.+)$/gm)].map(([, heading]) =>
    heading
      .toLowerCase()
      .replace(/[`*]/g, "")
      .replace(/[^\p{L}\p{N} _-]/gu, "")
      .replaceAll(" ", "-"),
  );
}

/** Lines that are commands: indented, with continued lines joined. */
function commandsOf(text: string): string[] {
  return text
    .replaceAll(/\\\n\s*/g, " ")
    .split("\n")
    .filter((line) => /^ {4}\S/.test(line) && !/[─═]/.test(line));
}

describe.each(DOCUMENTS)("%s", (path) => {
  const text = read(path);

  it("has only links that lead somewhere", () => {
    const links = [...text.matchAll(/\]\(([^)\s]+)\)|(?:src|srcset)="([^"]+)"/g)].map(([, a, b]) => a ?? b);
    const broken = links.filter((link) => {
      if (/^(?:https?|mailto):/.test(link)) return false;
      const [file, anchor] = link.split("#");
      const target = file === "" ? path : normalize(join(dirname(path), file));
      try {
        if (!statSync(join(ROOT, target)).isFile()) return !statSync(join(ROOT, target)).isDirectory();
      } catch {
        return true;
      }
      return anchor !== undefined && target.endsWith(".md") && !anchorsOf(read(target)).includes(anchor);
    });
    expect(broken).toEqual([]);
  });

  it("has only commands of existing programs and scripts, with existing options", () => {
    const { scripts } = JSON.parse(read("package.json")) as { scripts: Record<string, string> };
    const wrong: string[] = [];
    for (const command of commandsOf(text)) {
      const [, script] = /\bnpm run ([\w:-]+)/.exec(command) ?? [];
      if (script !== undefined && !(script in scripts)) wrong.push(command);
      const [, program, rest] =
        /(?:^|[ /])(udp-local|udp-server|tun2socks)(?:\.js)? (--.*)$/.exec(command) ?? [];
      if (program === undefined) continue;
      const { fields } = PROGRAMS.find(({ name }) => name === program)!;
      const flags = new Set(Object.values(fields).map(({ flag }) => flag));
      for (const [, flag] of rest.replace(/ # .*$/, "").matchAll(/(?:^| )--([\w-]+)/g)) {
        if (!flags.has(flag) && flag !== "help" && flag !== "version")
          wrong.push(`--${flag} of ${command.trim()}`);
      }
    }
    expect(wrong).toEqual([]);
  });
});
