import { UsageError } from "../../core/errors.ts";
import type { ConfigText } from "../../host/options/config-text.ts";
import { parseConfigText } from "../../host/options/config-text.ts";
import type { NameField, OptionField, OptionFields } from "../../host/options/fields/fields.ts";
import { libraryName, wrong } from "../../host/options/fields/fields.ts";
import type { KeyOption } from "../../host/options/keys.ts";
import { parseKeys } from "../../host/options/keys.ts";
import { memberValue, typed } from "../../host/options/member-value.ts";
import { parseShadowsocksConfig } from "../../host/options/shadowsocks-config.ts";
import { utf8Text } from "../../wire/http/http-head.ts";
import type { StartOptions } from "../c-host.ts";

/** The options of one start, in the library's form. */
export interface GatheredOptions {
  readonly values: Readonly<Record<string, unknown>>;
  /** Names a field as the caller wrote it: as a field of the struct, or by its place in the config. */
  readonly nameField: NameField;
}

/** Fields of the struct, by option; the config may contain each instead. */
const STRUCT_FIELDS = ["server", "psk", "listen", "forwards", "device"] as const;
/** The member that names a file with further options. */
const FILE_MEMBER = "config";

/** @throws HostError ERR_FILE that names the file */
export type FileReader = (path: string) => Uint8Array;

/** A config, and the folder in which its relative paths start. */
interface Source extends ConfigText {
  readonly folder: string;
  /** Options that are written as flags, such as `--listen`; errors name them that way. */
  readonly flags: ReadonlySet<string>;
}

/** Members of a config file that apply to a program, not to what the program starts. */
const PROGRAM_MEMBERS = ["log-level", "log-format", "ready-fd"];

/**
 * Reads the struct, its JSON, and the file that the JSON may name; the JSON overrides the file. Does not check values.
 *
 * @param missing  options that this host lacks, by flag, with the reason
 * @throws UsageError ERR_OPTION; HostError ERR_FILE when a file cannot be read
 */
export function gatherOptions(
  fields: OptionFields,
  start: StartOptions,
  readFile: FileReader,
  missing: ReadonlyMap<string, string>,
): GatheredOptions {
  const flags = Object.values(fields).flatMap(({ flag }) => flag ?? []);
  const names = new Set([...flags, ...missing.keys()]);
  const json =
    start.config === undefined ? undefined : readJson(start.config, new Set([...names, FILE_MEMBER]));
  const path = json?.members.get(FILE_MEMBER);
  const file =
    typeof path === "string"
      ? readConfig(path, new Set([...names, ...PROGRAM_MEMBERS]), readFile)
      : undefined;
  const sources = [json, file].filter((source) => source !== undefined);
  for (const source of sources) {
    const name = [...source.members.keys()].find((member) => missing.has(member));
    if (name !== undefined) throw wrong(nameIn(source, [name]), missing.get(name)!);
  }

  const values: Record<string, unknown> = {};
  const sourceOf = new Map<string, Source>();
  for (const [option, field] of Object.entries(fields)) {
    if (field.flag === undefined) continue;
    const source = sources.find(({ members }) => members.has(field.flag!));
    const given = structValue(start, option, field);
    if (given !== undefined && source !== undefined) {
      throw wrong(option, `is also in ${source.place([field.flag])}: give only one`);
    }
    if (source !== undefined) sourceOf.set(option, source);
    const value = given ?? (source && valueIn(source, field, readFile));
    if (value !== undefined) values[option] = value;
  }
  const nameField: NameField = ([option, ...inner]) => {
    const source = sourceOf.get(String(option));
    const { flag } = fields[String(option)] ?? {};
    const isCommandLine = json !== undefined && json.flags.size > 0;
    if (source === undefined) return isCommandLine ? `--${flag}` : libraryName([option, ...inner]);
    // A list with one element, written without brackets, has no index.
    const isBare = typeof inner[0] === "number" && !Array.isArray(source.members.get(flag!));
    const path = [flag!, ...(isBare ? inner.slice(1) : inner)] as (string | number)[];
    return nameIn(source, path);
  };
  return { values, nameField };
}

function structValue(start: StartOptions, option: string, field: OptionField): unknown {
  const name = STRUCT_FIELDS.find((known) => known === option);
  if (name === undefined) return undefined;
  const value = start[name];
  // `listen` is a text in one struct, empty for none, and a list in the other.
  if (name !== "listen" || field.isList || !Array.isArray(value)) return value;
  return value[0] === "" ? false : value[0];
}

/** Converts a member to a value for the library. The command line's numbers are text. */
function valueIn(source: Source, field: OptionField, readFile: FileReader): unknown {
  const inFolder = (path: string) =>
    source.folder === "" || path.startsWith("/") ? path : `${source.folder}/${path}`;
  const value = memberValue(source.members.get(field.flag!), field, inFolder);
  const isText = typeof value === "string";
  if (isText && field.flag === "keys") return readKeys(value, readFile);
  if (isText && field.flag === "ss-config") return parseShadowsocksConfig(value, readText(value, readFile));
  if (isText && field.isSecretFile) return readSecret(value, field, readFile);
  return isText ? typed(field, value) : value;
}

/** Names the option at a place as the caller wrote it. */
function nameIn(source: Source, path: readonly (string | number)[]): string {
  const isFlag = source.flags.has(String(path[0]));
  return isFlag ? `--${path[0]}` : `${source.place(path)}: ${libraryName(path)}`;
}

function readJson(text: string, names: ReadonlySet<string>): Source {
  const { members: written, place } = parseConfigText("config", text, undefined);
  const members = new Map<string, unknown>();
  const flags = new Set<string>();
  for (const [name, value] of written) {
    const isFlag = name.startsWith("--");
    const member = isFlag ? name.slice(2) : name;
    if (!names.has(member)) {
      if (isFlag) throw new UsageError("ERR_OPTION", `unknown option '${name}'; see --help`);
      // Throws with the place of the error.
      parseConfigText("config", text, names);
    }
    if (members.has(member)) throw wrong(name, "is given twice");
    members.set(member, value);
    if (isFlag) flags.add(member);
  }
  return { members, place, flags, folder: "" };
}

function readConfig(path: string, names: ReadonlySet<string>, readFile: FileReader): Source {
  const slash = path.lastIndexOf("/");
  const config = parseConfigText(path, readText(path, readFile), names);
  return { ...config, folder: slash < 0 ? "" : path.slice(0, slash), flags: new Set() };
}

function readKeys(path: string, readFile: FileReader): KeyOption[] {
  return parseKeys(path, readText(path, readFile));
}

function readText(path: string, readFile: FileReader): string {
  const text = utf8Text(withoutMark(readFile(path)));
  if (text === undefined) throw new UsageError("ERR_OPTION", `${path}: is not UTF-8`);
  return text;
}

/** Removes the byte-order mark that some editors put first. */
function withoutMark(bytes: Uint8Array): Uint8Array {
  return bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? bytes.subarray(3) : bytes;
}

/** Reads a key, without what editors add at the end; or credentials. */
function readSecret(path: string, { flag }: OptionField, readFile: FileReader): unknown {
  const bytes = withoutMark(readFile(path));
  let end = bytes.length;
  while (end > 0 && [0x20, 0x09, 0x0d, 0x0a].includes(bytes[end - 1])) end--;
  const secret = bytes.slice(0, end);
  if (flag !== "socks-auth-file") return secret;
  const text = utf8Text(secret) ?? "";
  const colon = text.indexOf(":");
  if (colon < 0 || /[\r\n]/.test(text)) {
    throw new UsageError("ERR_OPTION", `${path}: expected one line USER:PASSWORD`);
  }
  return { user: text.slice(0, colon), password: text.slice(colon + 1) };
}
