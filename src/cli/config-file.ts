import { dirname } from "node:path";
import type { Node, ParseError } from "jsonc-parser";
import { findNodeAtLocation, getNodeValue, parseTree, printParseErrorCode } from "jsonc-parser";
import { UsageError } from "../core/errors.ts";
import { readTextFile } from "../node/text-file.ts";

/** An object of options, read from a file. */
export interface ConfigFile {
  /** Values by name, as written. */
  readonly members: ReadonlyMap<string, unknown>;
  /** Relative paths in the file start here. */
  readonly folder: string;
  /** `FILE:LINE:COLUMN` of what stands at `path`, or of the innermost value around it. */
  place(path: readonly (string | number)[]): string;
}

/**
 * Reads a config file: JSON in UTF-8 with comments (line and block) and trailing commas.
 *
 * @param names  the members it may have; undefined for any
 * @throws UsageError ERR_OPTION with file, line and column; HostError ERR_FILE when the file cannot be read
 */
export function readConfigFile(path: string, names: ReadonlySet<string> | undefined): ConfigFile {
  const text = decode(path, readTextFile(path));
  const placeOf = (offset: number) => `${path}:${lineAndColumn(text, offset)}`;
  const wrong = (offset: number, problem: string) =>
    new UsageError("ERR_OPTION", `${placeOf(offset)}: ${problem}`);

  const errors: ParseError[] = [];
  const root = parseTree(text, errors, { allowTrailingComma: true });
  if (errors.length > 0) {
    // The text itself is not quoted: a URL in it may hold a password.
    const { error, offset } = errors[0];
    const problem = printParseErrorCode(error).replace(/\B[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
    throw wrong(offset, `not JSON: ${problem.toLowerCase()}`);
  }
  if (root?.type !== "object") throw wrong(root?.offset ?? 0, "expected one object");

  const members = new Map<string, unknown>();
  for (const { children } of root.children ?? []) {
    const [key, value] = children as [Node, Node];
    const name = String(key.value);
    if (names?.has(name) === false)
      throw wrong(key.offset, `${JSON.stringify(name)}: there is no such option`);
    if (members.has(name)) throw wrong(key.offset, `${JSON.stringify(name)} is given twice`);
    members.set(name, getNodeValue(value));
  }
  return {
    members,
    folder: dirname(path),
    place: (inner) => {
      let node: Node = root;
      for (const part of inner) node = findNodeAtLocation(node, [part]) ?? node;
      return placeOf(node.offset);
    },
  };
}

function decode(path: string, bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new UsageError("ERR_OPTION", `${path}: is not UTF-8`);
  }
}

/** Both count from 1, columns in UTF-16 units, as editors do. */
function lineAndColumn(text: string, offset: number): string {
  const lines = text.slice(0, offset).split(/\r\n|\r|\n/);
  return `${lines.length}:${lines.at(-1)!.length + 1}`;
}
