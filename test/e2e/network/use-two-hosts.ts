import { afterAll, afterEach, beforeAll } from "vitest";
import { TwoHosts } from "./two-hosts.ts";

/**
 * Makes two hosts for the tests of a `describe`, hands them to `use`, and removes them at the end. The message of a failed test or hook
 * includes the output of all programs of both hosts. Programs are killed after each test, or with `keepPrograms` only at the end.
 */
export function useTwoHosts(use: (hosts: TwoHosts) => void, options: { keepPrograms?: boolean } = {}): void {
  let hosts: TwoHosts | undefined;
  beforeAll(() => {
    hosts = new TwoHosts();
    use(hosts);
  });
  afterEach(async ({ task }) => {
    for (const error of task.result?.errors ?? []) error.message += `\n${hosts!.transcript()}`;
    if (!options.keepPrograms) await hosts!.killAll();
  });
  // biome-ignore lint/correctness/noEmptyPattern: vitest reads the text of this function and requires a pattern here.
  afterAll(async ({}, suite) => {
    // These are the errors of a `beforeAll`, which no test sees.
    for (const error of suite.result?.errors ?? []) error.message += `\n${hosts?.transcript() ?? ""}`;
    await hosts?.close();
  });
}
