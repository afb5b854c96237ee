import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const NATIVE = resolve(import.meta.dirname, "../../native");
const HEADERS = join(dirname(dirname(process.execPath)), "include/node");
const hasCompiler = spawnSync("cc", ["--version"]).status === 0 && existsSync(join(HEADERS, "uv.h"));

const files = (folder: string, ending: string) =>
  readdirSync(join(NATIVE, folder), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(ending))
    .map((name) => join(NATIVE, folder, name));

describe("native/io", () => {
  let headers = "";
  beforeAll(() => {
    // No other files beside libuv's headers may be found.
    headers = mkdtempSync(join(tmpdir(), "underpass-headers-"));
    for (const name of ["uv.h", "uv"]) symlinkSync(join(HEADERS, name), join(headers, name));
  });
  afterAll(() => rmSync(headers, { recursive: true }));

  it.skipIf(!hasCompiler && process.env.CI === undefined).each([
    ["source", ".c"],
    ["header", ".h"],
  ])("each %s compiles by itself, without a warning, against libuv's headers alone", (_, ending) => {
    const sources = files("io", ending);
    expect(sources.length).toBeGreaterThan(5);
    const options = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-x", "c"];
    const { stderr, status } = spawnSync("cc", [...options, "-I", headers, ...sources], { encoding: "utf8" });
    expect({ stderr, status }).toEqual({ stderr: "", status: 0 });
  });

  it("includes nothing of the bindings, which include only its interface", () => {
    const includes = (file: string) =>
      [...readFileSync(file, "utf8").matchAll(/^#include "([^"]+)"/gm)].map(([, name]) =>
        relative(NATIVE, resolve(dirname(file), name)),
      );
    for (const file of [...files("io", ".c"), ...files("io", ".h")]) {
      for (const name of includes(file)) expect(name).toMatch(/^io\//);
    }
    for (const file of [...files("napi", ".c"), ...files("napi", ".h")]) {
      for (const name of includes(file)) expect(name).toMatch(/^(napi\/[^/]+|io\/[^/]+)\.h$/);
    }
  });

  it("binding.gyp lists every source once", () => {
    const listed = [...readFileSync(join(NATIVE, "binding.gyp"), "utf8").matchAll(/"([^"]+\.c)"/g)].map(
      ([, name]) => name,
    );
    const written = [...files("io", ".c"), ...files("napi", ".c")].map((file) => relative(NATIVE, file));
    expect(listed.toSorted()).toEqual(written.toSorted());
  });
});
