import { isAbsolute, join } from "node:path";
import { Command, CommanderError, Option } from "commander";
import { UsageError } from "../core/errors.ts";
import type { InFolder } from "../host/addresses/endpoint.ts";
import type { NameField, OptionField, OptionFields } from "../host/options/fields/fields.ts";
import { libraryName } from "../host/options/fields/fields.ts";
import { memberValue, typed } from "../host/options/member-value.ts";
import { parseShadowsocksConfig } from "../host/options/shadowsocks-config.ts";
import type { ConfigFile } from "./config-file.ts";
import { readConfigFile, readConfigText } from "./config-file.ts";
import { readKeysFile } from "./keys-file.ts";
import { readCredentialsFile, readSecretFile } from "./secret-file.ts";

/** The options of one start, in the library's form. */
export interface GatheredOptions {
  readonly values: Record<string, unknown>;
  /** Names a field as the user wrote it: as a flag, or by its place in the config file. */
  readonly nameField: NameField;
  /** Files that hold secrets, by option. */
  readonly secretFiles: ReadonlyMap<string, string>;
}

/** The description of a program's command line. */
export interface CommandLine {
  readonly name: string;
  readonly description: string;
  readonly version: string;
  readonly examples: readonly string[];
  readonly fields: OptionFields;
}

/**
 * Reads the command line and the file given by `--config`; flags override the file, and lists replace lists. In the file, a list with one
 * element may be written without brackets, and relative paths start in the file's folder. Does not check values.
 *
 * @param argv  without the interpreter and the script
 * @returns undefined after `--help` or `--version`
 * @throws UsageError ERR_OPTION; HostError ERR_FILE when a file cannot be read
 */
export function gatherOptions(line: CommandLine, argv: readonly string[]): GatheredOptions | undefined {
  const flags = parseFlags(line, argv);
  if (flags === undefined) return undefined;
  const configPath = flags.get("config") as string | undefined;
  const config = configPath === undefined ? undefined : readConfig(configPath, line.fields);
  const values: Record<string, unknown> = {};
  const secretFiles = new Map<string, string>();
  for (const [option, field] of Object.entries(line.fields)) {
    if (field.flag === undefined) continue;
    const fromFlag = flags.get(field.flag);
    const value = fromFlag === undefined ? fromConfig(config, field) : typed(field, fromFlag);
    if (value === undefined) continue;
    if (field.isSecretFile && typeof value === "string") secretFiles.set(option, value);
    values[option] = field.isSecretFile ? readSecret(option, value) : value;
  }
  const nameField: NameField = ([option, ...inner]) => {
    const { flag } = line.fields[String(option)];
    if (config === undefined || !config.members.has(flag!) || flags.has(flag!)) return `--${flag}`;
    // A list with one element, written without brackets, has no index.
    const isBare = typeof inner[0] === "number" && !Array.isArray(config.members.get(flag!));
    const path = [flag!, ...(isBare ? inner.slice(1) : inner)] as (string | number)[];
    return `${config.place(path)}: ${libraryName(path)}`;
  };
  return { values, nameField, secretFiles };
}

/** @returns values by flag: text, lists of text, true for a switch; undefined after `--help` and `--version` */
function parseFlags(line: CommandLine, argv: readonly string[]): Map<string, unknown> | undefined {
  const command = new Command(line.name)
    .description(line.description)
    .version(line.version)
    .helpOption("-h, --help", "show this help")
    .exitOverride()
    .configureOutput({ outputError: () => {} })
    .addHelpText("after", `\nExamples:\n${line.examples.map((example) => `  ${example}\n`).join("")}`);
  const options = Object.values(line.fields).flatMap((field) => {
    if (field.flag === undefined) return [];
    const value = field.value === undefined ? "" : ` <${field.value}>`;
    const option = new Option(`--${field.flag}${value}`, field.help);
    if (field.isList) option.argParser((text: string, earlier: string[] = []) => [...earlier, text]);
    else if (field.value !== undefined) option.argParser(refuseSecond(field.flag));
    command.addOption(option);
    return [{ flag: field.flag, key: option.attributeName() }];
  });
  try {
    command.parse(argv, { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return undefined;
    // The text after "=" of a mistyped name may be a key.
    const problem = error.message
      .replace(/^error: /, "")
      .replace(/'(--[^'=]*)=.*'/s, "'$1'")
      .replace(/\s+/g, " ")
      .replace(/\.$/, "");
    throw new UsageError("ERR_OPTION", `${problem}; see --help`);
  }
  const given = command.opts<Record<string, unknown>>();
  return new Map(options.flatMap(({ flag, key }) => (given[key] === undefined ? [] : [[flag, given[key]]])));
}

function readConfig(path: string, fields: OptionFields): ConfigFile {
  const flags = Object.values(fields).flatMap(({ flag }) => flag ?? []);
  return readConfigFile(path, new Set(flags.filter((flag) => flag !== "config")));
}

/** Returns a parser that keeps the text, but refuses another one, because only one of them could take effect. */
function refuseSecond(flag: string): (text: string, earlier: string | undefined) => string {
  return (text, earlier) => {
    if (earlier !== undefined) throw new UsageError("ERR_OPTION", `--${flag}: is given twice`);
    return text;
  };
}

/** Converts a member of the config file to a value for the library. */
function fromConfig(config: ConfigFile | undefined, field: OptionField): unknown {
  if (config === undefined) return undefined;
  const inFolder: InFolder = (path) => (isAbsolute(path) ? path : join(config.folder, path));
  return memberValue(config.members.get(field.flag!), field, inFolder);
}

function readSecret(option: string, path: unknown): unknown {
  if (typeof path !== "string") return path;
  if (option === "shadowsocks") return parseShadowsocksConfig(path, readConfigText(path));
  if (option === "keys") return readKeysFile(path);
  return option === "socksAuth" ? readCredentialsFile(path) : readSecretFile(path);
}
