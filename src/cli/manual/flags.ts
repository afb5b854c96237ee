import type * as z from "zod";
import type { OptionFields } from "../../host/options/fields/fields.ts";

/** An option in the form that manuals and shells use. */
export interface Flag {
  /** Without the dashes. */
  readonly name: string;
  /** The placeholder of the value; undefined for a switch. */
  readonly value: string | undefined;
  readonly help: string;
  readonly isRepeatable: boolean;
  /** All allowed values, if they are few. */
  readonly choices: readonly string[];
  readonly takesPath: boolean;
}

/** The options of a program in the order of its table, then those that all programs have. */
export function flagsOf(fields: OptionFields): readonly Flag[] {
  const own = Object.values(fields).flatMap(({ flag, value, help = "", isList = false, schema }) =>
    flag === undefined
      ? []
      : {
          ...{ name: flag, value, help, isRepeatable: isList, choices: choicesOf(schema) },
          takesPath: value !== undefined && /FILE|FOLDER/.test(value),
        },
  );
  const common = { value: undefined, isRepeatable: false, choices: [], takesPath: false };
  return [
    ...own,
    { ...common, name: "version", help: "show the version" },
    { ...common, name: "help", help: "show a summary of these options" },
  ];
}

interface Wrapped extends z.ZodType {
  unwrap?(): Wrapped;
  readonly options?: readonly unknown[];
}

function choicesOf(schema: z.ZodType): readonly string[] {
  let inner = schema as Wrapped;
  while (inner.unwrap !== undefined) inner = inner.unwrap();
  const options = inner.options ?? [];
  return options.every((option) => typeof option === "string") ? options : [];
}
