import { expect, it } from "vitest";
import { ERROR_CODES } from "../../../src/core/errors.ts";

/** Retired numbers, which must never get another meaning. */
const RETIRED = { ERR_DATAGRAM_LENGTH: 42 };

it("gives every error code its own number, and never a retired one", () => {
  const numbers = Object.values(ERROR_CODES).map(({ number }) => number as number);
  const all = [...numbers, ...Object.values(RETIRED)];
  expect(new Set(all).size).toBe(all.length);
  for (const code of Object.keys(RETIRED)) expect(ERROR_CODES).not.toHaveProperty(code);
});
