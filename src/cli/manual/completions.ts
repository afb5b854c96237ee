import type { ProgramLine } from "../program.ts";
import type { Flag } from "./flags.ts";
import { flagsOf } from "./flags.ts";

/** Completion for bash (bash-completion is not needed). */
export function bashCompletion({ name, fields }: ProgramLine): string {
  const flags = flagsOf(fields);
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
  return `# bash completion for ${name}
${handler}() {
  local current=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD - 1]}
  COMPREPLY=()
  case $previous in
${cases.join("\n")}
  esac
  COMPREPLY=($(compgen -W '${flags.map((flag) => `--${flag.name}`).join(" ")}' -- "$current"))
}
complete -o filenames -F ${handler} ${name}
`;
}

function pattern(flags: readonly Flag[]): string {
  return flags.map((flag) => `--${flag.name}`).join("|");
}

/** Completion for zsh, as a file `_NAME` in its `fpath`. */
export function zshCompletion({ name, fields }: ProgramLine): string {
  const specs = flagsOf(fields).map((flag) => {
    const { value, choices, takesPath } = flag;
    const action = takesPath ? "_files" : choices.length > 0 ? `(${choices.join(" ")})` : " ";
    const argument = value === undefined ? "" : `:${bracketed(value)}:${action}`;
    return `${flag.isRepeatable ? "*" : ""}--${flag.name}[${bracketed(flag.help)}]${argument}`;
  });
  return `#compdef ${name}
_arguments -S ${specs.map((spec) => `\\\n  ${quoted(spec)}`).join(" ")}
`;
}

/** Escapes what \`_arguments\` reads in a description or a message. */
function bracketed(plain: string): string {
  return plain.replace(/[\\[\]:]/g, "\\$&");
}

/** Completion for fish. */
export function fishCompletion({ name, fields }: ProgramLine): string {
  const lines = flagsOf(fields).map(({ name: flag, value, help, choices, takesPath }) => {
    const how = value === undefined ? "" : takesPath ? " -rF" : " -x";
    const list = choices.length === 0 ? "" : ` -a '${choices.join(" ")}'`;
    return `complete -c ${name} -l ${flag}${how}${list} -d '${help.replace(/[\\']/g, "\\$&")}'`;
  });
  return `complete -c ${name} -f\n${lines.join("\n")}\n`;
}

/** In single quotes of a POSIX shell. */
function quoted(plain: string): string {
  return `'${plain.replace(/'/g, "'\\''")}'`;
}
