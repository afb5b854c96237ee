/** Below this length, a loop is faster than a view and a call into the engine. */
export const LOOP_BYTES = 96;

/** Copies `length` bytes; source and destination must not overlap. */
export function copyBytes(
  from: Uint8Array,
  fromOffset: number,
  length: number,
  to: Uint8Array,
  toOffset: number,
): void {
  if (length < LOOP_BYTES) for (let i = 0; i < length; i++) to[toOffset + i] = from[fromOffset + i];
  else if (fromOffset === 0 && length === from.length) to.set(from, toOffset);
  else to.set(from.subarray(fromOffset, fromOffset + length), toOffset);
}

/** Returns a copy. (Unlike slice(), which returns a view for a Buffer of Node.) */
export function copyOf(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(bytes);
}
