import { spawn } from "node:child_process";
import { expect, it, vi } from "vitest";
import { childEnd } from "../../../scripts/test/child-end.mjs";

/** A program whose child holds its pipes until `release`. */
function spawnHolding(status: number) {
  const child = spawn("sh", ["-c", `sleep 600 & echo "$!"; exit ${status}`], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
  const release = () => {
    // Process 0 would be the whole group.
    if (Number(output) > 0) process.kill(Number(output));
  };
  return { child, output: () => output, release };
}

it.each([0, 3])(
  "a step of a test run ends with its program and has status %i, though something holds its pipes",
  async (status) => {
    const { child, output, release } = spawnHolding(status);
    try {
      expect(await childEnd(child, 500)).toBe(status);
      expect(output()).toMatch(/^\d+\n$/);
    } finally {
      release();
    }
  },
);

it("a step that cannot be started, or is killed, has status 1", async () => {
  const report = vi.spyOn(console, "error").mockReturnValue();
  expect(await childEnd(spawn("/no/such/program"))).toBe(1);
  expect(report).toHaveBeenCalledOnce();
  report.mockRestore();
  expect(await childEnd(spawn("sh", ["-c", "kill -9 $$"]))).toBe(1);
});

it("tests that start programs run one by one, and once more under CI if they fail, in all projects", async () => {
  vi.stubEnv("CI", "1");
  const { default: config } = await import("../../../vitest.config.ts");
  const projects = config.test!.projects!.map(
    (project) => (project as { test: Record<string, unknown> }).test,
  );
  const ofPrograms = projects.filter(({ name }) => name !== "unit" && name !== "sim");
  expect(ofPrograms.map(({ name }) => name)).toEqual(
    expect.arrayContaining(["interop", "e2e-plain", "e2e-c"]),
  );
  for (const project of ofPrograms) {
    expect(project, String(project.name)).toMatchObject({ retry: 1, fileParallelism: false });
  }
  vi.unstubAllEnvs();
});
