import fc from "fast-check";

/** Lengths of the pieces in which a stream comes, used in turns; none for all at once. */
export const cutLengths = fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 20 });

/** Cuts a stream into pieces of these lengths. */
export function cut(bytes: Uint8Array, lengths: readonly number[]): Uint8Array[] {
  if (lengths.length === 0) return [bytes];
  const pieces: Uint8Array[] = [];
  for (let from = 0, turn = 0; from < bytes.length; turn++) {
    const to = from + lengths[turn % lengths.length];
    pieces.push(bytes.slice(from, to));
    from = to;
  }
  return pieces;
}

/** One after the other. */
export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}
