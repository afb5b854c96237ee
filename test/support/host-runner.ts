import { relative, resolve } from "node:path";
import type { RunnerTask, RunnerTestCase, RunnerTestSuite } from "vitest";
import { TestRunner } from "vitest";
import { LACKS, type Lack } from "./c-host-lacks.ts";
import { hostOf } from "./hosts.ts";

declare module "vitest" {
  interface TaskMeta {
    /** Why the C library lacks the feature that the test needs; see {@link LACKS}. */
    lack?: string;
  }
}

const ROOT = resolve(import.meta.dirname, "../..");

/** The test's name, preceded by those of its suites within the file, in the form of the list. */
function fullName(task: RunnerTask): string {
  const { suite } = task;
  return suite === undefined || suite.type !== "suite" || suite === task.file
    ? task.name
    : `${fullName(suite)} > ${task.name}`;
}

/**
 * Runs the tests with an end in C. {@link LACKS} lists what that end lacks: a listed test has to fail, and for the given reason;
 * every entry has to match a test.
 */
export default class HostRunner extends TestRunner {
  readonly #used = new Set<Lack>();

  override async onBeforeRunTask(test: RunnerTestCase): Promise<void> {
    await super.onBeforeRunTask(test);
    const lack = lackOf(test);
    if (lack?.isSkipped === true && test.mode === "run") {
      test.mode = "skip";
      test.meta.lack = lack.why;
      this.#used.add(lack);
    }
  }

  override onAfterRunTask(test: RunnerTestCase): void {
    super.onAfterRunTask(test);
    if (test.result?.state === "skip" || test.mode === "skip" || test.mode === "todo") return;
    this.#judge(test, lackOf(test));
  }

  override async onAfterRunSuite(suite: RunnerTestSuite): Promise<void> {
    await super.onAfterRunSuite(suite);
    // For a suite, these are the errors of its hooks.
    if (suite.result?.errors?.length) this.#judge(suite, lackOf(suite) ?? lackOfFirst(suite));
    if (suite === suite.file) this.#findUnused(suite);
    if (suite.result?.state === "fail" && !suite.result.errors?.length && suite.tasks.every(isGood))
      suite.result.state = "pass";
  }

  #judge(task: RunnerTask, lack: Lack | undefined): void {
    if (lack === undefined) return;
    this.#used.add(lack);
    const result = task.result!;
    if (result.state === "pass") {
      fail(task, `the C library can do this now: remove it from test/support/c-host-lacks.ts (${lack.why})`);
      return;
    }
    const messages = (result.errors ?? []).map(({ message }) => message);
    if (messages.some((message) => lack.error.test(message))) {
      result.state = "pass";
      result.errors = undefined;
      for (const test of task.type === "suite" ? allTests(task) : [task]) test.meta.lack = lack.why;
    } else fail(task, `fails, but not with ${lack.error}: ${messages.join("; ")}`);
  }

  /** Reports an entry that matches no test. */
  #findUnused(file: RunnerTestSuite): void {
    for (const lack of lacksOf(file)) {
      if (!this.#used.has(lack) && allTests(file).every((test) => !lack.test.test(fullName(test)))) {
        fail(file, `test/support/c-host-lacks.ts: no test is called ${lack.test}`);
      }
    }
  }
}

function isGood(task: RunnerTask): boolean {
  return task.result?.state !== "fail";
}

function fail(task: RunnerTask, message: string): void {
  const error = new Error(message);
  task.result!.state = "fail";
  task.result!.errors = [{ name: error.name, message, stack: error.stack }];
}

function lacksOf(task: RunnerTask): Lack[] {
  const file = relative(ROOT, task.file.filepath);
  return LACKS.filter((lack) => lack.file === file && lack.ends.some((end) => hostOf(end) === "c"));
}

function lackOf(task: RunnerTask): Lack | undefined {
  return lacksOf(task).find(({ test }) => test.test(fullName(task)));
}

/** A hook that fails also fails all of its suite's tests. */
function lackOfFirst(suite: RunnerTestSuite): Lack | undefined {
  const tests = allTests(suite);
  return lacksOf(suite).find(({ test }) => tests.every((each) => test.test(fullName(each))));
}

function allTests(suite: RunnerTestSuite): RunnerTask[] {
  return suite.tasks.flatMap((task) => (task.type === "suite" ? allTests(task) : [task]));
}
