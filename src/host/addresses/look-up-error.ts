import type { SystemErrors } from "../system.ts";

const REASONS: Readonly<Record<string, string>> = {
  EAI_NONAME: "no such name",
  EAI_NODATA: "this name has no address",
  EAI_AGAIN: "no name server answers",
};

/** Says why the system's resolver found no address, in plain words for usual reasons. @param error  negative */
export function lookUpError(name: string, error: number, errors: SystemErrors): Error {
  const code = errors.errorName(error);
  const reason = REASONS[code];
  const text = reason === undefined ? errors.errorText(error) : `${reason} (${code})`;
  return Object.assign(new Error(`${name}: ${text}`), { code });
}
