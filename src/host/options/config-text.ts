import type { Node, ParseError } from "jsonc-parser";
import { findNodeAtLocation, getNodeValue, parseTree, printParseErrorCode } from "jsonc-parser";
import { UsageError } from "../../core/errors.ts";

/** An object of options, as text. */
export interface ConfigText {
  /** Values by name, as written. */
  readonly members: ReadonlyMap<string, unknown>;
  /** `SOURCE:LINE:COLUMN` of the value at `path`, or of the innermost value around it. */
  place(path: readonly (string | number)[]): string;
}

/**
 * Reads options: JSON with comments (line and block) and trailing commas.
 *
 * @param source  name of the text's source, for messages
 * @param names   the members it may have; undefined for any
 * @throws UsageError ERR_OPTION with source, line and column
 */
export function parseConfigText(
  source: string,
  text: string,
  names: ReadonlySet<string> | undefined,
): ConfigText {
  const placeOf = (offset: number) => `${source}:${lineAndColumn(text, offset)}`;
  const wrong = (offset: number, problem: string) =>
    new UsageError("ERR_OPTION", `${placeOf(offset)}: ${problem}`);

  const errors: ParseError[] = [];
  const root = parseTree(text, errors, { allowTrailingComma: true });
  if (errors.length > 0) {
    // The text itself is not quoted, because a URL in it may contain a password.
    const { error, offset } = errors[0];
    const problem = printParseErrorCode(error).replace(/\B[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
    throw wrong(offset, `not JSON: ${problem.toLowerCase()}`);
  }
  if (root?.type !== "object") throw wrong(root?.offset ?? 0, "expected one object");

  const members = new Map<string, unknown>();
  for (const { children } of root.children ?? []) {
    const [key, value] = children as [Node, Node];
    const name = String(key.value);
    if (names?.has(name) === false) throw wrong(key.offset, `${JSON.stringify(name)}: unknown option`);
    if (members.has(name)) throw wrong(key.offset, `${JSON.stringify(name)} is given twice`);
    members.set(name, getNodeValue(value));
  }
  return {
    members,
    place: (inner) => {
      let node: Node = root;
      for (const part of inner) node = findNodeAtLocation(node, [part]) ?? node;
      return placeOf(node.offset);
    },
  };
}

/** Both count from 1, columns in UTF-16 units, as editors do. */
function lineAndColumn(text: string, offset: number): string {
  const lines = text.slice(0, offset).split(/\r\n|\r|\n/);
  return `${lines.length}:${lines.at(-1)!.length + 1}`;
}
