import type { TestProjectConfiguration } from "vitest/config";
import { NOT_OF_C } from "./c-host-lacks.ts";
import type { End } from "./hosts.ts";
import { ONE_BY_ONE } from "./one-by-one.ts";

/**
 * The tests of a folder with the C library at `ends`, and Node at the other.
 *
 * @param files  without their extensions; undefined for all
 */
export function cProject(
  folder: "interop" | "e2e",
  ends: readonly End[],
  files?: readonly string[],
): TestProjectConfiguration {
  return {
    test: {
      name: `${folder}-c${ends.length > 1 ? "" : `-${ends[0]}`}`,
      include: (files ?? ["**/*"]).map((name) => `test/${folder}/${name}.test.ts`),
      exclude: NOT_OF_C.flatMap(({ files }) => [...files]),
      env: Object.fromEntries(ends.map((end) => [`UNDERPASS_${end.toUpperCase()}_HOST`, "c"])),
      setupFiles: ["test/property-seed.ts"],
      runner: "./test/support/host-runner.ts",
      ...ONE_BY_ONE,
    },
  };
}
