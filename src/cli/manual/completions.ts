import type { ProgramCommand, ProgramLine } from "../program-line.ts";
import type { Flag } from "./flags.ts";
import { flagsOf } from "./flags.ts";

/** Completion for bash, which does not need bash-completion. */
export function bashCompletion(program: ProgramLine): string {
  const { name, fields, commands = [] } = program;
  const flags = allFlags(program);
  const withValue = flags.filter(({ value }) => value !== undefined);
  const cases = [
    ...withValue
      .filter(({ choices }) => choices.length > 0)
      .map(
        (flag) =>
          `    --${flag.name}) COMPREPLY=($(compgen -W '${flag.choices.join(" ")}' -- "$current")); return ;;`,
      ),
    `    ${pattern(withValue.filter(({ takesPath }) => takesPath))}) COMPREPLY=($(compgen -f -- "$current")); return ;;`,
    `    ${pattern(withValue.filter(({ takesPath, choices }) => !takesPath && choices.length === 0))}) return ;;`,
  ];
  const handler = `_${name.replace(/-/g, "_")}`;
  const own = words(flagsOf(fields));
  const others = commands.map(
    (command) => `    ${command.name}) words='${words(commandFlags(program, command))}' ;;\n`,
  );
  return `# bash completion for ${name}
${handler}() {
  local current=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD - 1]}
  COMPREPLY=()
  case $previous in
${cases.join("\n")}
  esac
  local words='${own}'
  case \${COMP_WORDS[1]} in
${others.join("")}  esac
  if [[ $COMP_CWORD -eq 1 ]]; then words="$words ${commands.map((command) => command.name).join(" ")}"; fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o filenames -F ${handler} ${name}
`;
}

/** The flags of a program and of its commands, each once. */
function allFlags({ fields, commands = [] }: ProgramLine): readonly Flag[] {
  const all = [...flagsOf(fields), ...commands.flatMap((command) => flagsOf(command.fields))];
  return [...new Map(all.reverse().map((flag) => [flag.name, flag])).values()].reverse();
}

function commandFlags({ fields }: ProgramLine, command: ProgramCommand): readonly Flag[] {
  return flagsOf(command.takesAll ? { ...command.fields, ...fields } : command.fields);
}

function words(flags: readonly Flag[]): string {
  return flags.map((flag) => `--${flag.name}`).join(" ");
}

function pattern(flags: readonly Flag[]): string {
  return flags.map((flag) => `--${flag.name}`).join("|");
}

/** Completion for zsh, for a file `_NAME` in its `fpath`. */
export function zshCompletion(program: ProgramLine): string {
  const { name, commands = [] } = program;
  const specs = allFlags(program).map((flag) => {
    const { value, choices, takesPath } = flag;
    const action = takesPath ? "_files" : choices.length > 0 ? `(${choices.join(" ")})` : " ";
    const argument = value === undefined ? "" : `:${bracketed(value)}:${action}`;
    return `${flag.isRepeatable ? "*" : ""}--${flag.name}[${bracketed(flag.help)}]${argument}`;
  });
  return `#compdef ${name}
_arguments -S ${commands.length === 0 ? "" : `\\\n  '1: :((${commands.map((one) => `${one.name}\\:${quotedWord(one.help)}`).join(" ")}))' `}${specs.map((spec) => `\\\n  ${quoted(spec)}`).join(" ")}
`;
}

/** Escapes what \`_arguments\` reads in a description or a message. */
function bracketed(plain: string): string {
  return plain.replace(/[\\[\]:]/g, "\\$&");
}

/** Completion for fish. */
export function fishCompletion(program: ProgramLine): string {
  const { name, commands = [] } = program;
  const words = commands.map(
    (one) =>
      `complete -c ${name} -n __fish_use_subcommand -a ${one.name} -d '${one.help.replace(/[\\']/g, "\\$&")}'`,
  );
  const lines = allFlags(program).map(({ name: flag, value, help, choices, takesPath }) => {
    const how = value === undefined ? "" : takesPath ? " -rF" : " -x";
    const list = choices.length === 0 ? "" : ` -a '${choices.join(" ")}'`;
    return `complete -c ${name} -l ${flag}${how}${list} -d '${help.replace(/[\\']/g, "\\$&")}'`;
  });
  return `complete -c ${name} -f\n${[...words, ...lines].join("\n")}\n`;
}

/** Escapes blanks and what `_arguments` reads in a list of words. */
function quotedWord(plain: string): string {
  return plain.replace(/[\\[\]:() ]/g, "\\$&");
}

/** Puts text into single quotes for a POSIX shell. */
function quoted(plain: string): string {
  return `'${plain.replace(/'/g, "'\\''")}'`;
}
