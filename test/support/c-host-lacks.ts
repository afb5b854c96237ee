import type { End } from "./hosts.ts";

/** What the C library cannot do, or not as a test wants it. */
export interface Lack {
  /** From the root of the checkout. */
  readonly file: string;
  /** Names of tests, each with its suites' before it and " > " between them. */
  readonly test: RegExp;
  /** It is lacking where one of these ends is in C. */
  readonly ends: readonly End[];
  /** What the test fails with. */
  readonly error: RegExp;
  readonly why: string;
}

/** All of it. A test that is listed and passes makes the run fail, and so does one that fails for another reason. */
export const LACKS: readonly Lack[] = [];

/** Files whose tests start neither end that could be in C. */
export const NOT_OF_C: readonly { readonly files: readonly string[]; readonly why: string }[] = [
  { files: ["test/interop/native-*.test.ts"], why: "the module for Node, its threads and packages" },
  {
    files: ["test/interop/admin.test.ts", "test/interop/dashboard.test.ts"],
    why: "the admin server of Node",
  },
  { files: ["test/interop/c-programs.test.ts"], why: "it has the C library at either end by itself" },
  {
    files: ["test/e2e/bench-link.test.ts", "test/e2e/two-hosts.test.ts"],
    why: "links and hosts of the tests",
  },
];
