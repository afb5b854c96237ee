// Medians of records.
/** @typedef {import("./measure.mjs").BenchRecord} BenchRecord */

/** @param {number[]} numbers  NaN of none */
export function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  if (sorted.length === 0) return Number.NaN;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Records that have these members. @param {BenchRecord[]} records @param {Record<string, unknown>} like */
export function select(records, like) {
  return records.filter((record) => Object.entries(like).every(([name, value]) => record[name] === value));
}

/** Over the rounds. @param {BenchRecord[]} records @param {Record<string, unknown>} like @param {(record: BenchRecord) => number} value */
export function medianOf(records, like, value) {
  return median(select(records, like).map(value));
}

/** The distinct values of a member, in order of appearance. @param {BenchRecord[]} records @param {string} name */
export function distinct(records, name) {
  return [...new Set(records.map((record) => record[name]))];
}

/** CPU time of both ends for a datagram, µs. @param {BenchRecord} record */
export function cpuUs({ localUs, serverUs }) {
  return localUs + serverUs;
}
