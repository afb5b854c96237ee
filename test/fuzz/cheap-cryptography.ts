import type { Cryptography } from "../../src/core/handshakes/credentials.ts";

/** Repeatable bytes, and a fast MAC that is only good for tests. */
export function cheapCryptography(seed: number): Cryptography {
  let counter = seed >>> 0;
  const mix = (value: number) => {
    let mixed = Math.imul(value ^ (value >>> 16), 0x7feb_352d);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x846c_a68b);
    return (mixed ^ (mixed >>> 16)) >>> 0;
  };
  const spread = (start: number, length: number) => {
    const bytes = new Uint8Array(length);
    for (let i = 0; i < length; i++) bytes[i] = mix(start + i * 0x9e37_79b9);
    return bytes;
  };
  return {
    hmac: (key, data) => {
      let state = 0x811c_9dc5;
      for (const byte of key) state = Math.imul(state ^ byte, 0x0100_0193);
      for (const byte of data) state = Math.imul(state ^ byte, 0x0100_0193);
      return spread(mix(state), 32);
    },
    random: (length) => spread(mix(counter++), length),
  };
}
