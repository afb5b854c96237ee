/** Reproducible random integers (a linear congruential generator). @param {number} seed */
export function seededIntegers(seed) {
  let state = seed;
  /** One from 0 to `below` - 1. @param {number} below */
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}
