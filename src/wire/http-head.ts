/** HTTP/1.1 message heads (RFC 9112), as far as an upgrade and a CONNECT need them. */

/** Longest head that is accepted from a peer, including the empty line. */
export const MAX_HEAD_BYTES = 8192;

export interface HttpHead {
  readonly startLine: string;
  /** Field names in lower case; a repeated field has several values. */
  readonly fields: ReadonlyMap<string, readonly string[]>;
}

/**
 * The end of the head: the offset just behind the first CR LF CR LF.
 *
 * @param from  where to start searching: 0, or the length at the last call less 3
 * @returns -1 when the end has not arrived yet
 */
export function findHeadEnd(bytes: Uint8Array, from: number, end: number): number {
  for (let i = Math.max(from, 0); i + 3 < end; i++) {
    if (bytes[i] === 13 && bytes[i + 1] === 10 && bytes[i + 2] === 13 && bytes[i + 3] === 10) return i + 4;
  }
  return -1;
}

/** Decodes a whole head. @returns undefined for bytes outside printable ASCII, folded lines or lines without a colon */
export function decodeHead(bytes: Uint8Array, end: number): HttpHead | undefined {
  let text = "";
  for (let i = 0; i < end; i++) {
    const byte = bytes[i];
    if (byte > 0x7e || (byte < 0x20 && byte !== 9 && byte !== 10 && byte !== 13)) return undefined;
    text += String.fromCharCode(byte);
  }
  const [startLine, ...lines] = text.slice(0, -4).split("\r\n");
  if (startLine === "" || /[\r\n]/.test(startLine)) return undefined;
  const fields = new Map<string, string[]>();
  for (const line of lines) {
    // Whitespace is trimmed separately: an expression that also skips it takes cubic time on a long run of blanks.
    const match = /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([^\r\n]*)$/.exec(line);
    if (match === null) return undefined;
    const name = match[1].toLowerCase();
    const value = match[2].trim();
    const values = fields.get(name);
    if (values === undefined) fields.set(name, [value]);
    else values.push(value);
  }
  return { startLine, fields };
}

/** The value of a field that occurs exactly once. */
export function singleField(head: HttpHead, name: string): string | undefined {
  const values = head.fields.get(name);
  return values?.length === 1 ? values[0] : undefined;
}

/** True when a list field (Connection, Upgrade) names `token`, in any case. */
export function fieldHasToken(head: HttpHead, name: string, token: string): boolean {
  return (head.fields.get(name) ?? []).some((value) =>
    value.split(",").some((item) => item.trim().toLowerCase() === token),
  );
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
