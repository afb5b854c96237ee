/** HTTP/1.1 message heads (RFC 9112), as far as an upgrade and a CONNECT need them. */

/** Longest head that is accepted from a peer, including the empty line. */
export const MAX_HEAD_BYTES = 8192;
const MAX_SCHEMES = 8;
const MAX_SCHEME_LENGTH = 32;

export interface HttpHead {
  readonly startLine: string;
  /** Field names in lower case; a repeated field has several values, each trimmed. */
  readonly fields: ReadonlyMap<string, readonly string[]>;
}

const HTAB = 9;
const LF = 10;
const CR = 13;
const SP = 32;
const DEL = 127;

/**
 * The end offset of the head, which is that of its first empty line. A line ends with CR LF or with LF alone (RFC 9112 §2.2).
 *
 * @param from  where to start the search: 0, or the length at the last call minus 2
 * @returns -1 if the end has not arrived yet
 */
export function findHeadEnd(bytes: Uint8Array, from: number, end: number): number {
  for (let i = Math.max(from, 0); i + 1 < end; i++) {
    if (bytes[i] !== LF) continue;
    if (bytes[i + 1] === LF) return i + 2;
    if (bytes[i + 1] === CR && i + 2 < end && bytes[i + 2] === LF) return i + 3;
  }
  return -1;
}

/**
 * Decodes a complete head. Bytes from 0x80 become one character each; a folded line continues the value before it (RFC 9112 §5.2).
 *
 * @returns undefined for control characters other than a tab, a CR within a line, whitespace before the first field or
 * before a colon, and lines without a colon
 */
export function decodeHead(bytes: Uint8Array, end: number): HttpHead | undefined {
  let text = "";
  for (let i = 0; i < end; i++) {
    const byte = bytes[i];
    const isControl = byte < SP ? byte !== HTAB && byte !== LF && byte !== CR : byte === DEL;
    const isBareCr = byte === CR && (i + 1 === end || bytes[i + 1] !== LF);
    if (isControl || isBareCr) return undefined;
    if (byte !== CR) text += String.fromCharCode(byte);
  }
  const [startLine, ...lines] = text.split("\n");
  // The rest of the empty line.
  if (lines.pop() !== "" || lines.pop() !== "" || /^[ \t]|^$/.test(startLine)) return undefined;
  const fields = new Map<string, string[]>();
  let values: string[] | undefined;
  for (const line of lines) {
    if (line.startsWith(" ") || line.startsWith("\t")) {
      const more = values?.pop();
      if (more === undefined) return undefined;
      values!.push(joinBlank(more, trimBlanks(line)));
      continue;
    }
    const colon = line.indexOf(":");
    const name = line.slice(0, Math.max(colon, 0)).toLowerCase();
    if (!isToken(name)) return undefined;
    values = fields.get(name);
    const value = trimBlanks(line.slice(colon + 1));
    if (values === undefined) {
      values = [value];
      fields.set(name, values);
    } else values.push(value);
  }
  return { startLine, fields };
}

/** True for the name of a field or of an authentication scheme (RFC 9110 §5.6.2). */
export function isToken(text: string): boolean {
  return /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(text);
}

/** The status of an HTTP/1.0 or 1.1 response; undefined for anything else. */
export function statusOf({ startLine }: HttpHead): number | undefined {
  const match = /^HTTP\/1\.[01] ([1-5][0-9][0-9])(?: |$)/.exec(startLine);
  return match === null ? undefined : Number(match[1]);
}

/** True for the status of a response that another one follows (RFC 9110 §15.2). */
export function isInterim(status: number): boolean {
  return status < 200 && status !== 101;
}

/** The value of a field that occurs exactly once. */
export function singleField(head: HttpHead, name: string): string | undefined {
  const values = head.fields.get(name);
  return values?.length === 1 ? values[0] : undefined;
}

/** Whether a list field (Connection, Upgrade) contains `token`, regardless of case. */
export function fieldHasToken(head: HttpHead, name: string, token: string): boolean {
  return (head.fields.get(name) ?? []).some((value) =>
    value.split(",").some((item) => trimBlanks(item).toLowerCase() === token),
  );
}

/** The schemes that a WWW-Authenticate or Proxy-Authenticate field offers (RFC 9110 §11.6.1): at most 8, each once. */
export function authenticationSchemes(head: HttpHead, name: string): string[] {
  const schemes = new Set<string>();
  for (const value of head.fields.get(name) ?? []) {
    // A quoted string may contain commas.
    for (const element of value.replace(/"(?:[^"\\]|\\.)*"?/g, '""').split(",")) {
      // A parameter has an equals sign after its name.
      const [scheme, next = "-"] = trimBlanks(element).split(/[ \t]+/, 2);
      if (isToken(scheme) && scheme.length <= MAX_SCHEME_LENGTH && !next.startsWith("=")) schemes.add(scheme);
    }
  }
  return [...schemes].slice(0, MAX_SCHEMES);
}

/** Trims blanks and tabs. A regular expression would take quadratic time on a long run of them. */
export function trimBlanks(text: string): string {
  let from = 0;
  let end = text.length;
  while (from < end && isBlank(text.charCodeAt(from))) from++;
  while (end > from && isBlank(text.charCodeAt(end - 1))) end--;
  return text.slice(from, end);
}

function isBlank(code: number): boolean {
  return code === SP || code === HTAB;
}

function joinBlank(first: string, second: string): string {
  return first === "" || second === "" ? first + second : `${first} ${second}`;
}

/** The bytes of ASCII text. */
export function asciiBytes(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/** UTF-8 of text without lone surrogates. */
export function utf8Bytes(text: string): Uint8Array {
  const bytes: number[] = [];
  for (const character of text) {
    const code = character.codePointAt(0)!;
    if (code < 0x80) bytes.push(code);
    else if (code < 0x800) bytes.push(0xc0 | (code >> 6), 0x80 | (code & 63));
    else if (code < 0x1_0000) bytes.push(0xe0 | (code >> 12), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
    else {
      bytes.push(0xf0 | (code >> 18), 0x80 | ((code >> 12) & 63));
      bytes.push(0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
    }
  }
  return Uint8Array.from(bytes);
}

/** @returns undefined for what is not UTF-8 */
export function utf8Text(bytes: Uint8Array): string | undefined {
  let encoded = "";
  for (const byte of bytes) encoded += `%${byte < 16 ? "0" : ""}${byte.toString(16)}`;
  try {
    return decodeURIComponent(encoded);
  } catch {
    return undefined;
  }
}
