import { expect, it, vi } from "vitest";
import { runKeygen } from "../../../src/cli/keygen.ts";

it("keygen takes nothing that begins with a dash for a name", () => {
  const write = vi.spyOn(process.stdout, "write").mockReturnValue(true);
  for (const option of ["--nope", "-n", "--"]) {
    expect(() => runKeygen([option]), option).toThrow(`unknown option '${option}'; see --help`);
  }
  expect(write).not.toHaveBeenCalled();
  runKeygen(["al-ice"]);
  expect(write).toHaveBeenCalledOnce();
  write.mockRestore();
});
