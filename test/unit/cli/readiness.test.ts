import { EventEmitter } from "node:events";
import { expect, it } from "vitest";
import { Readiness } from "../../../src/cli/readiness.ts";

it("a program is ready while it has a session, all its listeners accept, and it is not closing", () => {
  const running = new EventEmitter();
  let hasSession = false;
  const readiness = new Readiness(running, () => hasSession);
  expect(readiness.reasonAgainst()).toBe("no session");
  hasSession = true;
  expect(readiness.reasonAgainst()).toBeUndefined();
  running.emit("listener-failed", new Error("a fault"));
  expect(readiness.reasonAgainst()).toBe("a listener has failed");
  readiness.handleClosing();
  expect(readiness.reasonAgainst()).toBe("closing");
});
