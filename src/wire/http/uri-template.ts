/** URI templates of RFC 6570 up to level 3, as far as RFC 9298 §2 permits them for a UDP proxy. */
import { utf8Bytes } from "./http-head.ts";

/** A part of a template: literal text, or an expression. */
type Part =
  | { readonly kind: "literal"; readonly text: string }
  | { readonly kind: "expression"; readonly operator: "" | "?" | "&"; readonly names: readonly string[] };

const TARGET_HOST = "target_host";
const TARGET_PORT = "target_port";
/** Expansions of RFC 6570 that RFC 9298 §2 rules out. */
const FORBIDDEN_EXPANSIONS: Readonly<Record<string, string>> = {
  "+": "reserved expansion",
  "#": "fragment expansion",
  ".": "label expansion",
  "/": "path segment expansion",
  ";": "path-style parameters",
};

/** A template with the variables `target_host` and `target_port`. */
export class UdpProxyTemplate {
  readonly scheme: "http" | "https";
  /** The part between `//` and the path, as written: a host, with user and port if any. */
  readonly authority: string;
  readonly #parts: readonly Part[];

  constructor(scheme: "http" | "https", authority: string, parts: readonly Part[]) {
    this.scheme = scheme;
    this.authority = authority;
    this.#parts = parts;
  }

  /** Path and query for a target. @param host  an IP without brackets, or a name; percent-encoded if necessary */
  expand(host: string, port: number): string {
    const values = new Map([
      [TARGET_HOST, encodeValue(host)],
      [TARGET_PORT, String(port)],
    ]);
    return this.#parts
      .map((part) => (part.kind === "literal" ? part.text : expandExpression(part, values)))
      .join("");
  }
}

/** Parses a template. @returns what is wrong, as text, if it is not a template for a UDP proxy */
export function parseUdpProxyTemplate(text: string): UdpProxyTemplate | string {
  if (!/^[\x21-\x7e]*$/.test(text)) return "a template has ASCII without blanks only";
  const [, scheme, authority, rest] = /^(https?):\/\/([^/?#]*)(.*)$/s.exec(text) ?? [];
  if (scheme === undefined) return "expected http:// or https://";
  if (authority === "" || /[{}]/.test(authority)) return "expected a host without variables behind //";
  if (!rest.startsWith("/")) return "expected a path behind the host";
  const parts = parseParts(rest);
  if (typeof parts === "string") return parts;
  const names = parts.flatMap((part) => (part.kind === "expression" ? part.names : []));
  for (const name of [TARGET_HOST, TARGET_PORT]) {
    if (!names.includes(name)) return `the variable {${name}} is missing`;
  }
  return new UdpProxyTemplate(scheme as "http" | "https", authority, parts);
}

function parseParts(text: string): Part[] | string {
  const parts: Part[] = [];
  for (const [index, piece] of text.split(/\{([^{}]*)\}/).entries()) {
    if (index % 2 === 1) {
      const expression = parseExpression(piece);
      if (typeof expression === "string") return expression;
      parts.push(expression);
      continue;
    }
    if (/[{}]/.test(piece)) return "a brace has no counterpart";
    if (piece.includes("#")) return "a template has no fragment";
    if (/["<>\\^`|]/.test(piece)) return "a character that a URI cannot have";
    if (/%(?![0-9A-Fa-f]{2})/.test(piece)) return "% without two hexadecimal digits";
    if (piece !== "") parts.push({ kind: "literal", text: piece });
  }
  return parts;
}

function parseExpression(text: string): Part | string {
  const [, operator, list] = /^([^A-Za-z0-9_%]?)(.*)$/s.exec(text)!;
  if (Object.hasOwn(FORBIDDEN_EXPANSIONS, operator)) {
    return `{${text}}: RFC 9298 does not permit ${FORBIDDEN_EXPANSIONS[operator]}`;
  }
  if (operator !== "" && operator !== "?" && operator !== "&") return `{${text}}: there is no such expansion`;
  const names = list.split(",");
  for (const name of names) {
    if (/[:*]/.test(name)) return `{${text}}: RFC 9298 does not permit modifiers`;
    if (!/^(?:\w|%[0-9A-Fa-f]{2})+(?:\.(?:\w|%[0-9A-Fa-f]{2})+)*$/.test(name)) {
      return `{${text}}: expected names of variables`;
    }
  }
  return { kind: "expression", operator, names };
}

/** Expands an expression. Undefined variables expand to nothing (RFC 6570 §3.2.1). */
function expandExpression(
  { operator, names }: Extract<Part, { kind: "expression" }>,
  values: ReadonlyMap<string, string>,
): string {
  const known = names.filter((name) => values.has(name));
  if (known.length === 0) return "";
  if (operator === "") return known.map((name) => values.get(name)).join(",");
  return operator + known.map((name) => `${name}=${values.get(name)}`).join("&");
}

/** All but unreserved characters as percent-encoded UTF-8. */
function encodeValue(text: string): string {
  let encoded = "";
  for (const byte of utf8Bytes(text)) {
    const character = String.fromCharCode(byte);
    encoded += /[A-Za-z0-9\-._~]/.test(character)
      ? character
      : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return encoded;
}
