// Stands in for vitest in the engine: its expect, and the parts of its runner that the tests use.
import {
  ASYMMETRIC_MATCHERS_OBJECT,
  chai,
  GLOBAL_EXPECT,
  getState,
  JestAsymmetricMatchers,
  JestChaiExpect,
  JestExtend,
  setState,
} from "@vitest/expect";

type Body = (...values: unknown[]) => unknown;

interface Suite {
  readonly name: string;
  readonly parent: Suite | undefined;
  readonly steps: (() => Promise<void>)[];
  readonly hooks: Record<"beforeAll" | "afterAll" | "beforeEach" | "afterEach", Body[]>;
  readonly isSkipped: boolean;
}

const counts = { passed: 0, failed: 0, skipped: 0 };

function makeSuite(name: string, parent: Suite | undefined, isSkipped: boolean): Suite {
  const hooks = { beforeAll: [], afterAll: [], beforeEach: [], afterEach: [] };
  return { name, parent, steps: [], hooks, isSkipped };
}

let current = makeSuite("", undefined, false);
const root = current;

function pathOf(suite: Suite | undefined): string {
  if (suite === undefined || suite.name === "") return "";
  return `${pathOf(suite.parent)}${suite.name} > `;
}

/** The hooks of a suite and of those around it, from the outside in. */
function hooksOf(suite: Suite | undefined, kind: "beforeEach" | "afterEach"): Body[] {
  return suite === undefined ? [] : [...hooksOf(suite.parent, kind), ...suite.hooks[kind]];
}

async function runSuite(suite: Suite): Promise<void> {
  if (!suite.isSkipped) for (const hook of suite.hooks.beforeAll) await hook();
  for (const step of suite.steps) await step();
  if (!suite.isSkipped) for (const hook of suite.hooks.afterAll.toReversed()) await hook();
}

async function runTest(suite: Suite, name: string, body: Body, values: readonly unknown[]): Promise<void> {
  try {
    for (const hook of hooksOf(suite, "beforeEach")) await hook();
    await body(...values);
    for (const hook of hooksOf(suite, "afterEach").toReversed()) await hook();
    counts.passed++;
  } catch (error) {
    counts.failed++;
    print(`FAIL ${pathOf(suite)}${name}\n${error}\n${(error as Error).stack ?? ""}`);
  }
}

/** A name with the values of a row in place of %s and similar placeholders. */
function named(name: string, values: readonly unknown[]): string {
  let next = 0;
  return name.replace(/%[sdifjoO#]/g, () => String(values[next++]));
}

/** it and describe, with `each` and the functions that skip them. @param add  adds one, with the values of its row */
function makeAdder(add: (name: string, body: Body, values: readonly unknown[], isSkipped: boolean) => void) {
  const bodyOf = (one: unknown, other: unknown) => (typeof one === "function" ? one : other) as Body;
  const make = (isSkipped: boolean) =>
    Object.assign(
      (name: string, one: unknown, other?: unknown) => add(name, bodyOf(one, other), [], isSkipped),
      {
        each: (rows: Iterable<unknown>) => (name: string, one: unknown, other?: unknown) => {
          for (const row of rows) {
            const values = Array.isArray(row) ? row : [row];
            add(named(name, values), bodyOf(one, other), values, isSkipped);
          }
        },
      },
    );
  return Object.assign(make(false), {
    skip: make(true),
    skipIf: (isSkipped: unknown) => make(Boolean(isSkipped)),
    runIf: (isRun: unknown) => make(!isRun),
  });
}

export const it = makeAdder((name, body, values, isSkipped) => {
  const suite = current;
  suite.steps.push(async () => {
    if (isSkipped || suite.isSkipped) counts.skipped++;
    else await runTest(suite, name, body, values);
  });
});

export const describe = makeAdder((name, body, values, isSkipped) => {
  const suite = makeSuite(name, current, isSkipped || current.isSkipped);
  current.steps.push(() => runSuite(suite));
  current = suite;
  body(...values);
  current = suite.parent!;
});

export const beforeAll = (hook: Body): void => void current.hooks.beforeAll.push(hook);
export const afterAll = (hook: Body): void => void current.hooks.afterAll.push(hook);
export const beforeEach = (hook: Body): void => void current.hooks.beforeEach.push(hook);
export const afterEach = (hook: Body): void => void current.hooks.afterEach.push(hook);

for (const plugin of [JestExtend, JestChaiExpect, JestAsymmetricMatchers]) chai.use(plugin);
const check = (value: unknown, message?: string) => chai.expect(value, message);
Object.assign(check, chai.expect, (globalThis as never)[ASYMMETRIC_MATCHERS_OBJECT], {
  getState: () => getState(check as never),
  setState: (state: object) => setState(state, check as never),
  unreachable: (message = "reached what is unreachable") => chai.assert.fail(message),
});
setState({ assertionCalls: 0 }, check as never);
Object.defineProperty(globalThis, GLOBAL_EXPECT, { value: check, writable: true, configurable: true });
export const expect = check;

/** Runs the tests that the file has registered. */
export async function runTests(): Promise<void> {
  await runSuite(root);
  print(JSON.stringify(counts));
  exit(counts.failed > 0 || counts.passed + counts.skipped === 0 ? 1 : 0);
}
