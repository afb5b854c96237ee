import { Command, CommanderError, Option } from "commander";
import { UsageError } from "../core/errors.ts";
import type { NameField, OptionField, OptionFields } from "../node/options.ts";
import { readCredentialsFile, readFile, readSecretFile } from "./secret-file.ts";

/** Options of one start, as the library takes them. */
export interface GatheredOptions {
  readonly values: Record<string, unknown>;
  /** Names a field as it was written: as a flag, or as a member of the config file. */
  readonly nameField: NameField;
  /** Files that hold secrets. */
  readonly secretFiles: readonly string[];
}

/** What a program's command line is made from. */
export interface CommandLine {
  readonly name: string;
  readonly description: string;
  readonly version: string;
  readonly examples: readonly string[];
  readonly fields: OptionFields;
}

/**
 * Reads the command line and the file that `--config` names; flags win, lists replace lists. The values are not
 * checked yet.
 *
 * @param argv  without the interpreter and the script
 * @returns undefined when `--help` or `--version` was all that was asked for
 * @throws UsageError ERR_OPTION; HostError ERR_FILE when a file cannot be read
 */
export function gatherOptions(line: CommandLine, argv: readonly string[]): GatheredOptions | undefined {
  const flags = parseFlags(line, argv);
  if (flags === undefined) return undefined;
  const configPath = flags.get("config") as string | undefined;
  const members = configPath === undefined ? new Map<string, unknown>() : readConfig(configPath, line.fields);
  const values: Record<string, unknown> = {};
  const secretFiles: string[] = [];
  for (const [option, field] of Object.entries(line.fields)) {
    if (field.flag === undefined) continue;
    const fromFlag = flags.get(field.flag);
    const value = fromFlag === undefined ? members.get(field.flag) : typed(field, fromFlag);
    if (value === undefined) continue;
    if (field.isSecretFile && typeof value === "string") secretFiles.push(value);
    values[option] = field.isSecretFile ? readSecret(option, value) : value;
  }
  const nameField: NameField = ([option, index]) => {
    const { flag } = line.fields[String(option)];
    if (configPath === undefined || !members.has(flag!) || flags.has(flag!)) return `--${flag}`;
    return `${configPath}: ${flag}${typeof index === "number" ? `[${index}]` : ""}`;
  };
  return { values, nameField, secretFiles };
}

/** @returns values by flag: text, lists of text, true for a switch; undefined after `--help` and `--version` */
function parseFlags(line: CommandLine, argv: readonly string[]): Map<string, unknown> | undefined {
  const command = new Command(line.name)
    .description(line.description)
    .version(line.version)
    .helpOption("-h, --help", "show this")
    .exitOverride()
    .configureOutput({ outputError: () => {} })
    .addHelpText("after", `\nExamples:\n${line.examples.map((example) => `  ${example}\n`).join("")}`);
  const options = Object.values(line.fields).flatMap((field) => {
    if (field.flag === undefined) return [];
    const value = field.value === undefined ? "" : ` <${field.value}>`;
    const option = new Option(`--${field.flag}${value}`, field.help);
    if (field.isList) option.argParser((text: string, earlier: string[] = []) => [...earlier, text]);
    command.addOption(option);
    return [{ flag: field.flag, key: option.attributeName() }];
  });
  try {
    command.parse(argv, { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return undefined;
    // What follows "=" after a mistyped name may be a key.
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

function readConfig(path: string, fields: OptionFields): Map<string, unknown> {
  let config: unknown;
  try {
    config = JSON.parse(readFile(path).toString("utf8"));
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause;
    // The parser's own message quotes the file, in which a URL may hold a password.
    const position = /position \d+/.exec(cause.message)?.[0];
    throw new UsageError(
      "ERR_OPTION",
      `${path} is not JSON${position === undefined ? "" : ` (${position})`}`,
    );
  }
  if (typeof config !== "object" || config === null || Array.isArray(config)) {
    throw new UsageError("ERR_OPTION", `${path}: expected one object`);
  }
  const flags = new Set(Object.values(fields).map(({ flag }) => flag));
  for (const name of Object.keys(config)) {
    if (!flags.has(name) || name === "config") {
      throw new UsageError("ERR_OPTION", `${path}: ${JSON.stringify(name)}: there is no such option`);
    }
  }
  return new Map(Object.entries(config));
}

/** A flag's text as the value that a config file would have. What is no number stays text, to be refused by name. */
function typed(field: OptionField, value: unknown): unknown {
  return field.isNumber && /^-?\d+(\.\d+)?$/.test(String(value)) ? Number(value) : value;
}

function readSecret(option: string, path: unknown): unknown {
  if (typeof path !== "string") return path;
  return option === "socksAuth" ? readCredentialsFile(path) : readSecretFile(path);
}
