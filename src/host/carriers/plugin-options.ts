/** A shadowsocks plugin (SIP003): a program, and options that only it understands. */
export interface Plugin {
  readonly program: string;
  readonly options: string;
}

/** Splits `NAME;OPTIONS` of a URI (SIP002). A backslash escapes the character after it. */
export function parsePlugin(text: string): Plugin {
  const end = splitAt(text, ";");
  const program = withoutEscapes(end < 0 ? text : text.slice(0, end));
  return { program, options: end < 0 ? "" : text.slice(end + 1) };
}

/** Reads `NAME=VALUE;NAME;...`. A name without a value has an empty one. */
export function parsePluginOptions(text: string): Map<string, string> {
  const options = new Map<string, string>();
  for (let rest = text; rest !== ""; ) {
    const end = splitAt(rest, ";");
    const option = end < 0 ? rest : rest.slice(0, end);
    rest = end < 0 ? "" : rest.slice(end + 1);
    if (option === "") continue;
    const equals = splitAt(option, "=");
    const name = equals < 0 ? option : option.slice(0, equals);
    options.set(withoutEscapes(name), equals < 0 ? "" : withoutEscapes(option.slice(equals + 1)));
  }
  return options;
}

/** The first position of a character without a backslash before it; -1 if there is none. */
function splitAt(text: string, character: string): number {
  for (let i = 0; i < text.length; i++) {
    if (text[i] === "\\") i++;
    else if (text[i] === character) return i;
  }
  return -1;
}

function withoutEscapes(text: string): string {
  return text.replace(/\\(.)/gs, "$1");
}
