import * as z from "zod";
import { parseUtcTime } from "../../wire/http/http-date.ts";
import { utf8Bytes } from "../../wire/http/http-head.ts";
import { parseConfigText } from "./config-text.ts";
import { MIN_PSK_BYTES } from "./fields/common-fields.ts";
import { checkFields, libraryName, MAX_COUNT, wrong } from "./fields/fields.ts";

/** The key of one client of a server. */
export interface KeyOption {
  /** 1 to 64 letters, digits and `._@-`, different for each key. */
  readonly name: string;
  /** The text of the client's key file, at least 16 bytes of UTF-8, different for each key. */
  readonly key: string;
  /** When it expires, in seconds since 1970. Default: never. */
  readonly expires?: number | undefined;
  /**
   * UDP payload in each direction, over all sessions of the key, with bursts of a quarter of a second. Datagrams beyond it are dropped.
   * Default: no limit.
   */
  readonly bitsPerSecond?: number | undefined;
  /** The same limit in datagrams. */
  readonly datagramsPerSecond?: number | undefined;
  /** Limit of associations of the key; further ones are refused. Default: only the limits of the server. */
  readonly maxAssociations?: number | undefined;
}

export const MAX_KEYS = 4_096;

const NAME = /^[\w.@-]{1,64}$/;
export const KEY_NAME_EXPECTS = "a name of 1 to 64 letters, digits and ._@-";

export function isKeyName(text: string): boolean {
  return NAME.test(text);
}

const count = (high: number) => z.int().min(1).max(high).optional();

/** How each member is checked. `inFile` is its name in a file of keys. */
const ROW = {
  key: {
    inFile: "key",
    schema: z.string().refine((key) => utf8Bytes(key).length >= MIN_PSK_BYTES && key.trim() === key),
    expects: `a text of at least ${MIN_PSK_BYTES} bytes, without blanks around it`,
  },
  expires: {
    inFile: "expires",
    schema: z
      .int()
      .min(0)
      .max(2 ** 40)
      .optional(),
    expects: "seconds since 1970, or a time such as 2027-01-31 or 2027-01-31T12:00:00Z",
  },
  bitsPerSecond: {
    inFile: "bits-per-second",
    schema: z.int().min(1_000).max(1e12).optional(),
    expects: "an integer from 1000 to 1000000000000",
  },
  datagramsPerSecond: {
    inFile: "datagrams-per-second",
    schema: count(MAX_COUNT),
    expects: `an integer from 1 to ${MAX_COUNT}`,
  },
  maxAssociations: {
    inFile: "max-associations",
    schema: count(MAX_COUNT),
    expects: `an integer from 1 to ${MAX_COUNT}`,
  },
} as const;

type Member = keyof typeof ROW;
const MEMBERS = Object.keys(ROW) as Member[];

export const KEYS_EXPECTS =
  "keys with name, key, and optionally expires, bitsPerSecond, datagramsPerSecond and maxAssociations";

/** Checks the library's value. */
export const KEYS_SCHEMA = z
  .array(
    z.strictObject({
      name: z.string().regex(NAME),
      ...(Object.fromEntries(MEMBERS.map((member) => [member, ROW[member].schema])) as {
        [M in Member]: (typeof ROW)[M]["schema"];
      }),
    }),
  )
  .max(MAX_KEYS)
  .superRefine((keys, context) => {
    const twin = findTwin(keys);
    if (twin === undefined) return;
    const { index, member, other } = twin;
    const problem = member === "name" ? "occurs twice" : `is also that of ${keys[other].name}`;
    context.addIssue({ code: "custom", path: [index, member], params: { problem } });
  });

/** Finds the first two keys with the same name or the same key. */
function findTwin(
  keys: readonly KeyOption[],
): { readonly index: number; readonly member: "name" | "key"; readonly other: number } | undefined {
  for (const member of ["name", "key"] as const) {
    const seen = new Map<string, number>();
    for (const [index, row] of keys.entries()) {
      const other = seen.get(row[member]);
      if (other !== undefined) return { index, member, other };
      seen.set(row[member], index);
    }
  }
  return undefined;
}

/**
 * Reads a file of keys: an object with a member for each name, as JSON with comments and trailing commas.
 *
 * @param source  its path, for messages
 * @throws UsageError ERR_OPTION with path, line, column and the name of the row, but without any key
 */
export function parseKeys(source: string, text: string): KeyOption[] {
  const { members, place } = parseConfigText(source, text, undefined);
  const at = (path: readonly string[]) => `${place(path)}: ${libraryName(path)}`;
  if (members.size > MAX_KEYS) throw wrong(source, `has ${members.size} keys; the limit is ${MAX_KEYS}`);
  const keys = [...members].map(([name, row]): KeyOption => {
    if (!NAME.test(name))
      throw wrong(`${place([name])}: ${JSON.stringify(name)}`, `expected ${KEY_NAME_EXPECTS}`);
    if (typeof row !== "object" || row === null || Array.isArray(row)) {
      throw wrong(at([name]), "expected an object with a member key");
    }
    const values = row as Readonly<Record<string, unknown>>;
    const stranger = Object.keys(values).find((key) => !MEMBERS.some((member) => ROW[member].inFile === key));
    if (stranger !== undefined) throw wrong(at([name, stranger]), "unknown member");
    const parsed = MEMBERS.flatMap((member) => {
      const { inFile, schema, expects } = ROW[member];
      const value = member === "expires" ? secondsOf(values[inFile]) : values[inFile];
      if (!schema.safeParse(value).success) throw wrong(at([name, inFile]), `expected ${expects}`);
      return value === undefined ? [] : [[member, value] as const];
    });
    return { name, ...(Object.fromEntries(parsed) as unknown as Omit<KeyOption, "name">) };
  });
  const twin = findTwin(keys);
  if (twin !== undefined) {
    throw wrong(at([keys[twin.index].name, "key"]), `is also that of ${keys[twin.other].name}`);
  }
  return keys;
}

/** Converts a time from text to seconds since 1970; returns any other value unchanged. */
function secondsOf(value: unknown): unknown {
  return typeof value === "string" ? (parseUtcTime(value) ?? value) : value;
}

/** @throws UsageError ERR_OPTION with the place of the error */
export function checkKeys(keys: readonly KeyOption[]): readonly KeyOption[] {
  const field = { schema: KEYS_SCHEMA, expects: KEYS_EXPECTS, isSecretFile: true };
  return (checkFields({ keys: field }, { keys }, libraryName) as { keys: readonly KeyOption[] }).keys;
}
