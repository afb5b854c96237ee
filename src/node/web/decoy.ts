import { statSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { InFolder } from "../../host/addresses/endpoint.ts";
import { systemReason } from "../system-text.ts";

/** What strangers see. */
export type Decoy =
  | { readonly kind: "folder"; readonly path: string }
  /** A web server, to which requests are passed on. */
  | { readonly kind: "server"; readonly url: URL };

/** Answers one request of a stranger. */
export type AnswerStranger = (request: IncomingMessage, response: ServerResponse) => void;

/** Parses `http://HOST[:PORT][/PATH]`, `https://...` or the path of a folder. @returns undefined for anything else */
export function parseDecoy(text: string): Decoy | undefined {
  if (!/^[a-z][a-z0-9+.-]*:/i.test(text)) return text === "" ? undefined : { kind: "folder", path: text };
  if (!/^https?:\/\//.test(text) || !URL.canParse(text)) return undefined;
  const url = new URL(text);
  const hasMore = url.username !== "" || url.password !== "" || /[?#]/.test(text);
  return hasMore ? undefined : { kind: "server", url };
}

/** Rewrites the path of a folder. */
export function rebaseDecoy(text: string, inFolder: InFolder): string {
  return parseDecoy(text)?.kind === "folder" ? inFolder(text) : text;
}

/** @param text  well-formed. @returns what is wrong with the folder */
export function findDecoyProblem(text: string): string | undefined {
  const decoy = parseDecoy(text)!;
  if (decoy.kind === "server") return undefined;
  try {
    return statSync(decoy.path).isDirectory() ? undefined : `${text} is not a folder`;
  } catch (error) {
    return `${decoy.path}: ${systemReason(error)}`;
  }
}
