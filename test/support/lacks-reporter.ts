import type { Reporter, TestModule } from "vitest/node";
import "./host-runner.ts";

/** After a run with an end in C, reports how many tests need features that it lacks, for each project and reason. */
export default class LacksReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    const counts = new Map<string, number>();
    for (const module of modules) {
      for (const test of module.children.allTests()) {
        const { lack } = test.meta();
        if (lack === undefined) continue;
        const line = `${module.project.name}: ${lack}`;
        counts.set(line, (counts.get(line) ?? 0) + 1);
      }
    }
    if (counts.size > 0) console.log("\nListed in test/support/c-host-lacks.ts, and lacking:");
    for (const [line, count] of [...counts].sort()) console.log(`  ${count} of ${line}`);
  }
}
