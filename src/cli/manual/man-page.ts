import type { ProgramCommand, ProgramLine } from "../program-line.ts";
import type { Flag } from "./flags.ts";
import { flagsOf } from "./flags.ts";

/** The version and date of a manual page. */
export interface Edition {
  readonly version: string;
  /** `2026-01-31` */
  readonly date: string;
}

/**
 * A manual page in the macros of man(7).
 *
 * @param others  names of the other programs
 */
export function manPage(
  { name, description, examples, fields, commands = [] }: ProgramLine,
  { version, date }: Edition,
  others: readonly string[],
): string {
  const [summary] = description.split(/[.:] /);
  const lines = [
    `.TH ${text(name.toUpperCase())} 1 ${date} "underpass ${text(version)}" "User Commands"`,
    ".SH NAME",
    `${text(name)} \\- ${text(lowered(summary.replace(/\.$/, "")))}`,
    ".SH SYNOPSIS",
    `.B ${text(name)}`,
    ".RI [ OPTION ...]",
    ...commands.flatMap((command) => [".br", `.B ${text(name)} ${command.name}`, ".RI [ OPTION ...]"]),
    ".SH DESCRIPTION",
    ...sentences(description),
    ".SH OPTIONS",
    ...flagsOf(fields).flatMap(optionLines),
    ...(commands.length === 0 ? [] : [".SH COMMANDS"]),
    ...commands.flatMap((command) => commandLines(name, command)),
    ".SH CONFIGURATION FILE",
    ...paragraph(
      "The file of --config contains one JSON object; comments and trailing commas are allowed.",
      "Its members are the names of the options above without the dashes. Repeatable options take lists, and switches take true.",
      "Relative paths in it start in the file's folder.",
      "Options on the command line override it.",
    ),
    ".SH SIGNALS",
    ...paragraph(
      "SIGTERM and SIGINT end the program with status 0 once queued data is sent; a second signal ends it at once.",
      "SIGHUP is ignored.",
    ),
    ".SH EXIT STATUS",
    ...[
      ["0", "A signal ended the program."],
      [
        "1",
        "The program failed to start or while running, for example because an address is in use; or doctor found a fault.",
      ],
      ["2", "An option or the configuration file is wrong; one line on standard error names it."],
    ].flatMap(([status, meaning]) => [".TP", `.B ${status}`, textLine(meaning)]),
    ".SH ENVIRONMENT",
    ".TP",
    ".B UNDERPASS_IO",
    textLine("native or plain; applies if --io is not given."),
    ".TP",
    '.BR LISTEN_PID , " " LISTEN_FDS , " " LISTEN_FDNAMES',
    textLine("Sockets that systemd passes, for udp-server --listen fd:NAME."),
    ".SH EXAMPLES",
    ".nf",
    ...examples.map((example) => textLine(example.replace(/\s{2,}/, "    # "))),
    ".fi",
    ".SH SEE ALSO",
    ...others.map((other, index) => `.BR ${text(other)} (1)${index < others.length - 1 ? "," : ""}`),
    "",
  ];
  return lines.join("\n");
}

function optionLines({ name, value, help }: Flag): string[] {
  return [
    ".TP",
    value === undefined ? `.B \\-\\-${text(name)}` : `.BI \\-\\-${text(name)} " ${text(value)}"`,
    `${textLine(capitalized(help))}.`,
  ];
}

function commandLines(program: string, { name, help, fields, takesAll }: ProgramCommand): string[] {
  return [
    `.SS ${text(program)} ${text(name)}`,
    textLine(`${capitalized(help)}.`),
    ...(takesAll ? [textLine("Takes all options above, and these:")] : []),
    ...flagsOf(fields)
      .filter((flag) => !takesAll || !["version", "help"].includes(flag.name))
      .flatMap(optionLines),
  ];
}

function paragraph(...parts: readonly string[]): string[] {
  return parts.map(textLine);
}

/** Splits text into lines of one sentence, the style of roff. */
function sentences(paragraphText: string): string[] {
  return paragraph(...paragraphText.split(/(?<=\.) /));
}

function textLine(line: string): string {
  const escaped = text(line);
  return /^[.']/.test(escaped) ? `\\&${escaped}` : escaped;
}

/** Escapes the characters that roff interprets. A hyphen stays one that a shell accepts. */
function text(plain: string): string {
  return plain
    .replace(/\\/g, "\\e")
    .replace(/-/g, "\\-")
    .replace(/"/g, "\\(dq")
    .replace(/~/g, "\\(ti")
    .replace(/\^/g, "\\(ha")
    .replace(/'/g, "\\(aq");
}

function capitalized(words: string): string {
  // The placeholder of a value stays as the user types it.
  return /^[a-z]+ [a-z]/.test(words) ? words[0].toUpperCase() + words.slice(1) : words;
}

function lowered(words: string): string {
  return words[0].toLowerCase() + words.slice(1);
}
