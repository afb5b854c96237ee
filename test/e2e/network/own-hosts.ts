import { it } from "vitest";
import { TwoHosts } from "./two-hosts.ts";

/**
 * `it` that gives each test two hosts of its own, so that tests can run side by side. The hosts go with the test; the
 * message of a failed test gets what the programs said.
 */
export const itOnOwnHosts = it.extend<{ hosts: TwoHosts }>({
  hosts: async ({ onTestFailed }, use) => {
    const hosts = new TwoHosts();
    let transcript = "";
    onTestFailed(({ task }) => {
      for (const error of task.result?.errors ?? []) error.message += `\n${transcript}`;
    });
    await use(hosts);
    transcript = hosts.transcript();
    await hosts.close();
  },
});
