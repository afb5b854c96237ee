import { it } from "vitest";
import { TwoHosts } from "./two-hosts.ts";

/**
 * `it` that gives each test two hosts of its own, so that tests can run side by side. The hosts are removed after the test; the message of
 * a failed test includes the programs' output.
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
