import fc from "fast-check";
import type { StreamCoding } from "../../src/core/stream-coding.ts";

/** Lengths of the pieces of a stream, used in turn; none for a single piece. */
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

/** Joins the parts in order. */
export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

/** Decodes pieces in order up to the first error. @returns the decoded bytes and the code of that error */
export function decodeAll(coding: StreamCoding, pieces: readonly Uint8Array[]) {
  const runs: Uint8Array[] = [];
  let error: string | undefined;
  for (const piece of pieces) {
    const found = coding.decode(piece, 0, piece.length, (bytes, offset, end) =>
      runs.push(bytes.slice(offset, end)),
    );
    error = found?.code;
    if (error !== undefined) break;
  }
  // Faster than concat() for long streams.
  return { bytes: new Uint8Array(Buffer.concat(runs)), error };
}
