import { expect, it } from "vitest";
import { bundleForEngine } from "../../../scripts/test/engine-bundle.mjs";
import { LEFT_OUT, LONG, testFiles } from "../../../scripts/test/engine-files.mjs";

it("each test that is not left out of the C library's engine imports only what the engine has", async () => {
  const files = testFiles().filter((file) => !LEFT_OUT.includes(file));
  expect(files.length).toBeGreaterThan(100);
  expect(await bundleForEngine(files)).toEqual([]);
});

it("a test that starts a program imports what the engine lacks", async () => {
  const faults = await bundleForEngine(["test/unit/node/capi-scripts.test.ts"]);
  expect(faults).toContainEqual(expect.stringContaining("node:child_process"));
});

it("tests that are left out of the engine, or take minutes in it, exist", () => {
  expect(testFiles()).toEqual(expect.arrayContaining([...LEFT_OUT, ...LONG]));
});
