import { getSystemErrorMap } from "node:util";

/** `connection refused (ECONNREFUSED)`. @param errno  negative. @returns undefined for a number that is no system error */
export function systemText(errno: number | undefined): string | undefined {
  const known = errno === undefined ? undefined : getSystemErrorMap().get(errno);
  return known && `${known[1]} (${known[0]})`;
}
