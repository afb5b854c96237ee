import { describe, expect, it } from "vitest";
import { bashCompletion, fishCompletion, zshCompletion } from "../../../src/cli/manual/completions.ts";
import { flagsOf } from "../../../src/cli/manual/flags.ts";
import { manPage } from "../../../src/cli/manual/man-page.ts";
import { PROGRAMS } from "../../../src/cli/manual/programs.ts";

const EDITION = { version: "1.2.3", date: "2026-01-31" };

describe.each(PROGRAMS)("$name", (program) => {
  const flags = flagsOf(program.fields);
  const commands = program.commands ?? [];

  it("has a manual page with every option, its value and its help", () => {
    const page = manPage(program, EDITION, ["other"]);
    const own = commands.flatMap(({ fields, takesAll }) =>
      flagsOf(fields).filter(({ name }) => !takesAll || !["version", "help"].includes(name)),
    );
    for (const { name, value, help } of [...flags, ...own]) {
      expect(help, name).not.toBe("");
      const plain = page.replace(/\\-/g, "-").replace(/\\\(dq/g, '"');
      expect(plain).toContain(value === undefined ? `.B --${name}\n` : `.BI --${name} " ${value}"\n`);
    }
    expect(page.match(/^\.TP\n\.BI? \\-\\-/gm)).toHaveLength(flags.length + own.length);
    for (const { name, help } of commands) {
      expect(page).toContain(`\n.SS ${program.name.replace(/-/g, "\\-")} ${name}\n`);
      expect(help).not.toBe("");
    }
  });

  it("has its commands in the manual page and in all completions", () => {
    const [bash, zsh, fish] = [bashCompletion(program), zshCompletion(program), fishCompletion(program)];
    expect(commands.map(({ name }) => name).slice(0, 2)).toEqual(["status", "top"]);
    for (const { name, fields } of commands) {
      expect(bash).toMatch(new RegExp(`\\n {4}${name}\\) words='.*--help`));
      expect(zsh).toContain(` ${name}\\:`.replace(/^ /, name === "status" ? "((" : " "));
      expect(fish).toContain(` -a ${name} -d`);
      for (const flag of flagsOf(fields)) expect(fish).toContain(` -l ${flag.name} `);
    }
  });

  it("has completions with every option for bash, zsh and fish", () => {
    const [bash, zsh, fish] = [bashCompletion(program), zshCompletion(program), fishCompletion(program)];
    for (const { name } of [...flags, ...commands.flatMap(({ fields }) => flagsOf(fields))]) {
      expect(bash).toMatch(new RegExp(`[' ]--${name}[' ]`));
      expect(zsh).toContain(`--${name}[`);
      expect(fish).toContain(` -l ${name} `);
    }
  });

  it("completes the values of an option with few values", () => {
    expect(flags.find(({ name }) => name === "io")?.choices).toEqual(["native", "plain"]);
    expect(flags.find(({ name }) => name === "latency")?.choices).toEqual([
      "interactive",
      "balanced",
      "bulk",
    ]);
    expect(flags.find(({ name }) => name === "psk-file")?.choices).toEqual([]);
  });
});

describe("A manual page", () => {
  const page = (help: string) =>
    manPage(
      {
        ...PROGRAMS[0],
        name: "x-y",
        fields: { a: { ...PROGRAMS[0].fields.psk, flag: "a", value: "V", help } },
      },
      EDITION,
      [],
    );

  it("shows text unchanged that roff would interpret", () => {
    expect(page(".dot")).toContain("\n\\&.dot.\n");
    expect(page("a\\b 'c' ~d \"e\"")).toContain("a\\eb \\(aqc\\(aq \\(tid \\(dqe\\(dq");
  });

  it("begins help with a capital letter unless it is a value", () => {
    expect(page("path of a file")).toContain("\nPath of a file.\n");
    expect(page("tun:NAME or pipe:")).toContain("\ntun:NAME or pipe:.\n");
  });
});
