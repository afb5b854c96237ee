export { seededIntegers } from "../support/seeded-integers.mjs";

/** Reproducible random numbers (mulberry32). @returns a function that returns 32 bits */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b_79f5) >>> 0;
    let value = Math.imul(state ^ (state >>> 15), state | 1);
    value ^= value + Math.imul(value ^ (value >>> 7), value | 61);
    return (value ^ (value >>> 14)) >>> 0;
  };
}

/** `length` random bytes. */
export function randomBytes(random: () => number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = random();
  return bytes;
}

/** A copy with a few bytes changed, removed, repeated or inserted. */
export function mutate(random: () => number, bytes: Uint8Array): Uint8Array {
  // Not slice(), which returns a view of a Buffer.
  let mutant: Uint8Array = new Uint8Array(bytes);
  for (let changes = 1 + (random() % 3); changes > 0; changes--) {
    const at = mutant.length === 0 ? 0 : random() % mutant.length;
    switch (random() % 5) {
      case 0:
        mutant[at] = random();
        break;
      case 1:
        mutant[at] ^= 1 << (random() % 8);
        break;
      case 2:
        mutant = mutant.slice(0, at);
        break;
      case 3:
        mutant = Uint8Array.of(...mutant.subarray(0, at), random() & 0xff, ...mutant.subarray(at));
        break;
      default:
        mutant = Uint8Array.of(...mutant.subarray(0, at), ...mutant.subarray(at >> 1));
    }
  }
  return mutant;
}
