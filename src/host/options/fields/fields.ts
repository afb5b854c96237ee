import * as z from "zod";
import { UsageError } from "../../../core/errors.ts";
import type { InFolder } from "../../addresses/endpoint.ts";
import { redactUrl } from "../../carriers/hop.ts";

/** Describes how one option is checked, and how programs accept it. */
export interface OptionField {
  /** Checks the library's value, and supplies the default. */
  readonly schema: z.ZodType;
  /** Description of a valid value, for messages. */
  readonly expects: string;
  /** Name of the flag and of the member of a config file; undefined for an option that only the library has. */
  readonly flag?: string;
  /** Placeholder of the value in `--help`; undefined for a switch. */
  readonly value?: string;
  readonly help?: string;
  /** The flag may be repeated; a config file has an array. */
  readonly isList?: boolean;
  readonly isNumber?: boolean;
  /** Programs accept the path of a file that contains the value, which is never shown. */
  readonly isSecretFile?: boolean;
  /** Rewrites the file paths in one text of the value; undefined if there are none. */
  readonly rebase?: (text: string, inFolder: InFolder) => string;
}

export type OptionFields = Readonly<Record<string, OptionField>>;

/** A number with a default. */
export function integer(
  flag: string,
  value: string,
  help: string,
  low: number,
  high: number,
  fallback: number,
): OptionField {
  const expects = `an integer from ${low} to ${high}`;
  return {
    schema: z.int().min(low).max(high).default(fallback),
    expects,
    flag,
    value,
    help: `${help} (default ${fallback})`,
    isNumber: true,
  };
}

/** A value that only code of the embedding program can give. */
export function embeddersOwn<Value>(isGood: (value: unknown) => boolean, expects: string): OptionField {
  return { schema: z.custom<Value>(isGood).optional(), expects };
}

export const MAX_COUNT = 1_000_000;

/** Names a wrong field for the user. @param path  in the library's options */
export type NameField = (path: readonly PropertyKey[]) => string;

/**
 * Checks an object of options against its table.
 *
 * @throws UsageError ERR_OPTION
 */
export function checkFields(fields: OptionFields, input: object, nameField: NameField): object {
  const shape = Object.fromEntries(Object.entries(fields).map(([name, { schema }]) => [name, schema]));
  // Compiling a function for one call would cost more than it saves.
  const result = z.strictObject(shape).safeParse(input, { jitless: true });
  if (result.success) return result.data;
  const { code, path: inner, ...rest } = result.error.issues[0];
  // A list with one element, given without a list, has no index.
  const isBare = typeof (input as Record<PropertyKey, unknown> | null)?.[inner[0]] === "string";
  const path = isBare ? inner.slice(0, 1) : inner;
  if (code === "unrecognized_keys") {
    const [key] = (rest as { keys: string[] }).keys;
    throw wrong(nameField([...path, key]), "unknown option");
  }
  const field = fields[String(path[0])];
  if (field === undefined) throw wrong("options", "expected an object");
  const { params } = rest as { params?: { problem: string } };
  const problem = params?.problem ?? `expected ${field.expects}`;
  throw wrong(nameField(path), `${problem}${field.isSecretFile ? "" : got(input, path)}`);
}

export function libraryName(path: readonly PropertyKey[]): string {
  return path
    .map((part, i) => (typeof part === "number" ? `[${part}]` : `${i === 0 ? "" : "."}${String(part)}`))
    .join("");
}

/** The error for a wrong field. */
export function wrong(name: string, problem: string): UsageError {
  return new UsageError("ERR_OPTION", `${name}: ${problem}`);
}

/** Describes the value at `path`, or the last text on the way there. */
function got(input: unknown, path: readonly PropertyKey[]): string {
  let value = input;
  for (const part of path) {
    if (typeof value !== "object" || value === null) break;
    value = (value as Record<PropertyKey, unknown>)[part];
  }
  if (value === undefined) return "";
  if (typeof value === "object" && value !== null) return ", got an object";
  if (typeof value === "function") return ", got a function";
  return `, got ${typeof value === "string" ? JSON.stringify(redactUrl(value).slice(0, 200)) : String(value)}`;
}
