import { expect, it } from "vitest";
import type { ReasonToDrop } from "../../../../src/core/session/queue/ended-contexts.ts";
import { EndedContexts } from "../../../../src/core/session/queue/ended-contexts.ts";
import { makeAddress } from "../../../../src/wire/socket-address.ts";

const REMOTE = makeAddress("192.0.2.1", 53)!;

it("searches a flow once for the datagrams of all contexts that end in a turn, and at the latest for every 256", () => {
  const ended = new EndedContexts();
  const searches: [flow: number, ReturnType<ReasonToDrop>[]][] = [];
  const where = {
    holds: (flow: number) => flow < 2,
    dropContexts: (flow: number, reasonOf: ReasonToDrop) =>
      void searches.push([flow, [2, 3, 4, 6].map((id) => reasonOf(id))]),
  };
  ended.note(where, 0, 2, REMOTE, "context_limit");
  ended.note(where, 1, 4, undefined, "unknown_context");
  ended.note(where, 0, 6, undefined, "refused_target");
  ended.note(where, 2, 3, REMOTE, "context_limit");
  expect([ended.remoteOf(0, 2), ended.remoteOf(1, 2), ended.remoteOf(2, 3)]).toEqual([
    REMOTE,
    undefined,
    undefined,
  ]);
  for (let i = 0; i < 2; i++) ended.drop(where);
  const reasons = ["context_limit", undefined, "unknown_context", "refused_target"];
  expect(searches.splice(0)).toEqual([
    [0, reasons],
    [1, reasons],
  ]);
  for (let id = 0; id < 600; id++) ended.note(where, 0, id, REMOTE, "context_limit");
  expect(searches).toHaveLength(2);
});
