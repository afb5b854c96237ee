import { existsSync } from "node:fs";
import { defineConfig } from "vitest/config";
import { cProject } from "./test/support/c-projects.ts";
import { C_DRIVER, C_PROGRAM } from "./test/support/hosts.ts";

for (const program of [C_PROGRAM, C_DRIVER]) {
  if (!existsSync(program)) throw new Error(`there is no ${program}: npm run build:capi -- --test`);
}

/** `npm run test:hosts`: all interop and e2e tests with the C library at either end, and at both. */
export default defineConfig({
  test: {
    passWithNoTests: true,
    reporters: ["default", "./test/support/lacks-reporter.ts"],
    projects: [
      ...(["interop", "e2e"] as const).flatMap((folder) => [
        cProject(folder, ["local", "server", "tun2socks"]),
        cProject(folder, ["local"]),
        cProject(folder, ["server"]),
      ]),
      cProject("e2e", ["tun2socks"], ["tun/**/*"]),
    ],
  },
});
