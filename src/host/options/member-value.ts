import type { InFolder } from "../addresses/endpoint.ts";
import type { OptionField } from "./fields/fields.ts";

/**
 * Converts a member of a config file to a value for the library. A list with one element may be written without brackets.
 *
 * @param inFolder  resolves relative paths
 */
export function memberValue(value: unknown, field: OptionField, inFolder: InFolder): unknown {
  if (value === undefined) return undefined;
  const rebased = (item: unknown) => {
    if (typeof item !== "string") return item;
    return field.isSecretFile ? inFolder(item) : (field.rebase?.(item, inFolder) ?? item);
  };
  if (Array.isArray(value)) return value.map(rebased);
  return field.isList && typeof value === "string" ? [rebased(value)] : rebased(value);
}

/**
 * Converts a flag's text to the value that a config file would have. An invalid number stays text, so that the check refuses it.
 */
export function typed(field: OptionField, value: unknown): unknown {
  return field.isNumber && /^-?\d+(\.\d+)?$/.test(String(value)) ? Number(value) : value;
}
