import { getSystemErrorMap } from "node:util";
import type { SystemErrors } from "../host/system.ts";

/**
 * Describes an error as in `connection refused (ECONNREFUSED)`.
 *
 * @param errno  negative
 * @returns undefined for a number that is not a system error
 */
export function systemText(errno: number | undefined): string | undefined {
  const known = errno === undefined ? undefined : getSystemErrorMap().get(errno);
  return known && `${known[1]} (${known[0]})`;
}

/** The reason of an error that Node has thrown, in the same words; its message if the system did not cause it. */
export function systemReason(error: unknown): string {
  const { errno, message } = error as NodeJS.ErrnoException;
  return systemText(errno) ?? message;
}

/** @see SystemErrors */
export const nodeErrors: SystemErrors = {
  errorName: (error) => getSystemErrorMap().get(error)?.[0] ?? `error ${error}`,
  errorText: (error) => systemText(error) ?? `error ${error}`,
};
