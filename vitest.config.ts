import { existsSync } from "node:fs";
import { defineConfig } from "vitest/config";
import { cProject } from "./test/support/c-projects.ts";
import { C_DRIVER } from "./test/support/hosts.ts";
import { ONE_BY_ONE } from "./test/support/one-by-one.ts";

const QUICK_INTEROP = [
  ...["both-families", "carriers", "http/connect-udp-clients", "dialects/local", "dialects/server"],
  ...[
    "forward-sources",
    "hostile-peers",
    "http/http-heads",
    "http/http2-hostile-clients",
    "http/masque-h2o",
    "plain-client",
  ],
  ...["http/reverse-proxies", "shadowsocks", "socks5-clients", "tcp-relay", "http/web-sockets"],
];
const QUICK_E2E = ["connect-udp-fragments", "link-local", "packet-info", "ways"];
/** Where the module was built it must load: tests that fell back would prove nothing of it. */
const NATIVE = existsSync("native/build/Release/underpass.node") ? { UNDERPASS_IO: "native" } : {};
const PLAIN = { UNDERPASS_IO: "plain" };

/**
 * The C library at both ends, in what takes seconds; `npm run test:hosts` has all files, and C with Node. Where it was not built,
 * CI alone insists.
 */
const C_PROJECTS =
  existsSync(C_DRIVER) || process.env.CI !== undefined
    ? [
        cProject("interop", ["local", "server"], QUICK_INTEROP),
        cProject("e2e", ["local", "server"], QUICK_E2E),
      ]
    : [];

/** The same cases in each run; `SEED=2 npx vitest …` tries others. */
const setupFiles = ["test/property-seed.ts"];

/** What talks to sockets runs with both kinds of I/O. */
export default defineConfig({
  test: {
    passWithNoTests: true,
    projects: [
      { test: { name: "unit", include: ["test/unit/**/*.test.ts"], testTimeout: 120_000, setupFiles } },
      { test: { name: "sim", include: ["test/sim/**/*.test.ts"], testTimeout: 120_000, setupFiles } },
      {
        test: {
          name: "interop",
          include: ["test/interop/**/*.test.ts"],
          env: NATIVE,
          setupFiles,
          ...ONE_BY_ONE,
        },
      },
      { test: { name: "e2e", include: ["test/e2e/**/*.test.ts"], env: NATIVE, setupFiles, ...ONE_BY_ONE } },
      {
        test: {
          name: "interop-plain",
          include: ["test/interop/**/*.test.ts"],
          // The dashboard has no I/O of ours.
          exclude: ["test/interop/native/*.test.ts", "test/interop/operation/dashboard.test.ts"],
          env: PLAIN,
          setupFiles,
          ...ONE_BY_ONE,
        },
      },
      {
        test: {
          name: "e2e-plain",
          include: ["test/e2e/**/*.test.ts"],
          // doctor finds the same with either.
          // A TUN device is native, and so are the address that was spoken to and options of TCP; the benchmarks' link has no I/O of ours.
          exclude: [
            ...["test/e2e/tun/**/*.test.ts", "test/e2e/nat-contract.test.ts", "test/e2e/packet-info.test.ts"],
            ...["test/e2e/doctor.test.ts", "test/e2e/congestion-control.test.ts"],
            ...["test/e2e/network/bench-link.test.ts", "test/e2e/connect-udp-fragments.test.ts"],
          ],
          env: PLAIN,
          setupFiles,
          ...ONE_BY_ONE,
        },
      },
      ...C_PROJECTS,
    ],
  },
});
