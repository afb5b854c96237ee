import { describe, expect, it } from "vitest";
import { lookUpError } from "../../../../src/host/addresses/look-up-error.ts";

const NAMES = new Map([
  [-3001, "EAI_AGAIN"],
  [-3004, "EAI_FAIL"],
  [-3007, "EAI_NODATA"],
  [-3008, "EAI_NONAME"],
]);
const errors = {
  errorName: (error: number) => NAMES.get(error)!,
  errorText: () => "permanent failure (EAI_FAIL)",
};

describe("a name without an address", () => {
  it.each([
    [-3008, "EAI_NONAME", "no such name (EAI_NONAME)"],
    [-3007, "EAI_NODATA", "this name has no address (EAI_NODATA)"],
    [-3001, "EAI_AGAIN", "no name server answers (EAI_AGAIN)"],
    [-3004, "EAI_FAIL", "permanent failure (EAI_FAIL)"],
  ])("gets a reason in plain words: %s", (error, code, text) => {
    const found = lookUpError("a.example", error, errors);
    expect(found).toMatchObject({ message: `a.example: ${text}`, code });
  });
});
