import { describe, expect, it } from "vitest";
import { EndedIds } from "../../../../src/core/server/sessions/ended-ids.ts";

describe("the reasons of ended ids", () => {
  it("are those of the newest ids of each place", () => {
    const ended = new EndedIds(["idle", "limit"]);
    ended.note(4, "limit");
    ended.note(0x7fff_ffff, "idle");
    expect([4, 0x7fff_ffff, 5, 4 + 2_048].map((id) => ended.reasonOf(id))).toEqual([
      ...["limit", "idle"],
      ...[undefined, undefined],
    ]);
    ended.note(4 + 2_048, "idle");
    expect([4, 4 + 2_048].map((id) => ended.reasonOf(id))).toEqual([undefined, "idle"]);
  });

  it.each([2 ** 31 + 4, 2 ** 32 + 4, 2 ** 61 + 4_096, 0, -1])("do not change with id %d", (id) => {
    const ended = new EndedIds(["idle", "limit"]);
    for (const valid of [4, 2_048]) ended.note(valid, "limit");
    ended.note(id, "idle");
    expect([4, 2_048, id].map((each) => ended.reasonOf(each))).toEqual(["limit", "limit", undefined]);
  });
});
