/** Names in DNS messages, RFC 1035 §3.1 and §4.1: labels with a length byte each, ended by an empty one. */

const HEADER_BYTES = 12;
const MAX_NAME_BYTES = 255;

/** Wire form of a dotted name in lower case, or undefined if it is invalid. A final dot is allowed. */
export function encodeDnsName(text: string): Uint8Array | undefined {
  const labels = text.replace(/\.$/, "").toLowerCase().split(".");
  const bytes: number[] = [];
  for (const label of labels) {
    if (!/^[a-z0-9_-]{1,63}$/.test(label)) return undefined;
    bytes.push(label.length, ...Array.from(label, (char) => char.charCodeAt(0)));
  }
  bytes.push(0);
  return bytes.length > MAX_NAME_BYTES ? undefined : Uint8Array.from(bytes);
}

/**
 * Whether `bytes[offset..end)` is a query whose first question is for `name` or a name below it, regardless of case.
 *
 * @param name  as {@link encodeDnsName} returns it
 */
export function isQueryWithin(bytes: Uint8Array, offset: number, end: number, name: Uint8Array): boolean {
  const question = offset + HEADER_BYTES;
  // QR = 0 and at least one question.
  if (question >= end || bytes[offset + 2] >> 7 !== 0 || (bytes[offset + 4] | bytes[offset + 5]) === 0) {
    return false;
  }
  const nameEnd = Math.min(end, question + MAX_NAME_BYTES);
  let last = question;
  while (last < nameEnd && bytes[last] !== 0) {
    // The name of the first question has nothing before it that a pointer could refer to.
    if (bytes[last] > 63) return false;
    last += 1 + bytes[last];
  }
  if (last >= nameEnd) return false;
  const suffix = last + 1 - name.length;
  for (let label = question; label <= suffix; label += 1 + bytes[label]) {
    if (label === suffix) return isSameName(bytes, suffix, name);
  }
  return false;
}

function isSameName(bytes: Uint8Array, offset: number, name: Uint8Array): boolean {
  for (let i = 0; i < name.length; i++) {
    const byte = bytes[offset + i];
    // Length bytes are below 64, so this changes only letters.
    const lower = byte >= 0x41 && byte <= 0x5a ? byte + 0x20 : byte;
    if (lower !== name[i]) return false;
  }
  return true;
}
