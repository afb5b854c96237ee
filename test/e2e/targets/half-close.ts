import { fileURLToPath } from "node:url";
import { expect } from "vitest";
import type { TwoHosts } from "../network/two-hosts.ts";

const SCRIPT = fileURLToPath(new URL("../peers/half-close.py", import.meta.url));

/** Expects that half-closes and resets from either end of a connection to `address` reach the other end. */
export async function expectHalfClosesAndResets(
  { client, server }: TwoHosts,
  address: string,
  description: string,
): Promise<void> {
  for (const [mode, ...outcomes] of [
    ["ask-fin", "300000 FIN", "200000 FIN"],
    ["serve-fin", "300000 FIN", "200000 FIN"],
    ["ask-reset", "0 RST"],
    ["serve-reset", "0 RST"],
  ]) {
    const at = [address, `${server.port()}`, mode];
    const target = server.spawn(["python3", SCRIPT, "serve", ...at]);
    await target.waitForLine(/^listening$/);
    const application = client.spawn(["python3", SCRIPT, "ask", ...at]);
    expect([await target.exit(15_000), await application.exit(15_000)]).toEqual([0, 0]);
    const printed = [target, application].flatMap(({ lines }) => lines.map(({ text }) => text));
    expect(printed.sort().slice(0, -1), `${description} ${mode}`).toEqual(outcomes.sort());
  }
}
