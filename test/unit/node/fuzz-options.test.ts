import { expect, it, vi } from "vitest";
import { main as fuzz } from "../../fuzz/main.ts";
import { main as hostile } from "../../hostile/main.ts";

const WRONG = [
  ["--steps", "x"],
  ["--steps", "0"],
  ["--steps", "1.5"],
  ["--seeds", "1,"],
  ["--seeds", "x,2"],
];

it.each([
  ["fuzz", fuzz],
  ["fuzz:hostile", hostile],
] as const)("npm run %s has status 2 if steps or seeds are not positive integers", async (_name, main) => {
  const report = vi.spyOn(console, "error").mockReturnValue();
  for (const args of WRONG) expect(await main(args), args.join(" ")).toBe(2);
  expect(report).toHaveBeenCalledTimes(WRONG.length);
  report.mockRestore();
});

it("npm run fuzz:hostile has status 2 if there is no such attack", async () => {
  const print = vi.spyOn(console, "log").mockReturnValue();
  for (const name of ["none", "toString"]) expect(await hostile(["--only", name]), name).toBe(2);
  print.mockRestore();
});
