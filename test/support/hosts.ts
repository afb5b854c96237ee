import { join, resolve } from "node:path";

const ROOT = resolve(import.meta.dirname, "../..");
const C_BUILD = join(ROOT, "build/capi");

/** The host of an end: Node, or the C library. */
export type HostKind = "node" | "c";
export type End = "local" | "server" | "tun2socks";
export type ProgramName = "udp-local" | "udp-server" | "tun2socks";

/** The host of an end in this run of the tests, according to its project in vitest.config.ts. */
export function hostOf(end: End): HostKind {
  return process.env[`UNDERPASS_${end.toUpperCase()}_HOST`] === "c" ? "c" : "node";
}

/** The C library's program. */
export const C_PROGRAM = join(C_BUILD, "bin/underpass");
/** Runs one instance of the C library for a test. */
export const C_DRIVER = join(C_BUILD, "tests/host-driver");

const END_OF: Readonly<Record<ProgramName, End>> = {
  "udp-local": "local",
  "udp-server": "server",
  tun2socks: "tun2socks",
};

/** The file of a program on Node, for tests of features that only Node has. */
export function programFile(name: ProgramName): string {
  return join(ROOT, `dist/cli/${name}.js`);
}

/** The command that starts a program on this run's host; its options follow. */
export function programCommand(name: ProgramName): readonly [string, ...string[]] {
  const end = END_OF[name];
  if (hostOf(end) === "c") return [C_PROGRAM, end];
  return [process.execPath, programFile(name)];
}
