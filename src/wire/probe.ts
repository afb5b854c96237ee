/**
 * Measuring delay by direction, PROTOCOL.md §4.9. A clock is its sender's in microseconds, modulo 2³².
 *
 *     MEASURE   80 55 50 0a | varint length | varint period | varint lead | varint gap | varint count | varint bytes
 *     PROBE     80 55 50 0b | varint length | clock 4 | flags 1 | varint sequence | count 1 | (varint sequence, clock 4)* | padding
 */
import { readUint32, writeUint32 } from "./network-order.ts";
import { readVarint, varintLength, varintLengthFrom, writeVarint } from "./varint.ts";

export const CAPSULE_MEASURE = 0x55_500a;
export const CAPSULE_PROBE = 0x55_500b;

const CLOCK_BYTES = 4;
const TYPE_BYTES = 4;
/** Bounds of a train, which apply at both ends. */
export const MIN_PERIOD_MS = 5;
export const MAX_PERIOD_MS = 1_000;
export const MAX_PROBES = 32_768;
/** Longest value of a PROBE. */
export const MAX_PROBE_BYTES = 1_400;
/** Most arrivals that one PROBE reports. */
export const MAX_ARRIVALS = 24;
/** Clocks count modulo this, in microseconds. */
export const CLOCK_MODULUS = 2 ** 32;

/** Asks the receiver to send a PROBE at once. */
const FLAG_ANSWER = 1;

/** A train of PROBEs: one per period or, with a gap, three, of which the first asks for an answer. */
export interface ProbePattern {
  readonly periodMs: number;
  /** Time from the first of three to the second. */
  readonly leadMs: number;
  /** Time from the second of three to the third; 0 for single PROBEs. */
  readonly gapMs: number;
  /** Number of PROBEs; 0 ends a train. */
  readonly count: number;
  /** Size to which each value is padded. */
  readonly bytes: number;
}

/** The arrival of a PROBE, as its receiver observed it. */
export interface Arrival {
  readonly sequence: number;
  readonly clock: number;
}

export interface Probe extends Arrival {
  readonly wantsAnswer: boolean;
  readonly arrivals: readonly Arrival[];
}

/** The pattern with each value limited to its bounds. */
export function boundedPattern({ periodMs, leadMs, gapMs, count, bytes }: ProbePattern): ProbePattern {
  const period = Math.min(Math.max(periodMs, MIN_PERIOD_MS), MAX_PERIOD_MS);
  const lead = Math.min(leadMs, period - 1);
  return {
    periodMs: period,
    leadMs: lead,
    gapMs: Math.min(gapMs, period - 1 - lead),
    count: Math.min(count, MAX_PROBES),
    bytes: Math.min(bytes, MAX_PROBE_BYTES),
  };
}

export function encodeMeasure({ periodMs, leadMs, gapMs, count, bytes }: ProbePattern): Uint8Array {
  const numbers = [periodMs, leadMs, gapMs, count, bytes];
  const length = numbers.reduce((sum, number) => sum + varintLength(number), 0);
  const capsule = new Uint8Array(TYPE_BYTES + 1 + length);
  let at = writeVarint(capsule, writeVarint(capsule, 0, CAPSULE_MEASURE), length);
  for (const number of numbers) at = writeVarint(capsule, at, number);
  return capsule;
}

/** @param bytes  smallest size of the value */
export function encodeProbe({ clock, wantsAnswer, sequence, arrivals }: Probe, bytes: number): Uint8Array {
  const needed = arrivals.reduce(
    (sum, arrival) => sum + varintLength(arrival.sequence) + CLOCK_BYTES,
    CLOCK_BYTES + 1 + varintLength(sequence) + 1,
  );
  const length = Math.max(needed, bytes);
  const capsule = new Uint8Array(TYPE_BYTES + varintLength(length) + length);
  let at = writeVarint(capsule, writeVarint(capsule, 0, CAPSULE_PROBE), length);
  writeUint32(capsule, at, clock);
  capsule[at + CLOCK_BYTES] = wantsAnswer ? FLAG_ANSWER : 0;
  at = writeVarint(capsule, at + CLOCK_BYTES + 1, sequence);
  capsule[at++] = arrivals.length;
  for (const arrival of arrivals) {
    at = writeVarint(capsule, at, arrival.sequence);
    writeUint32(capsule, at, arrival.clock);
    at += CLOCK_BYTES;
  }
  return capsule;
}

/** @returns undefined for a malformed value */
export function decodeProbe(bytes: Uint8Array, offset: number, end: number): Probe | undefined {
  if (offset + CLOCK_BYTES >= end) return undefined;
  const clock = readUint32(bytes, offset);
  const wantsAnswer = (bytes[offset + CLOCK_BYTES] & FLAG_ANSWER) !== 0;
  let at = offset + CLOCK_BYTES + 1;
  const sequence = readBounded(bytes, at, end);
  if (sequence < 0) return undefined;
  at += varintLengthFrom(bytes[at]);
  if (at >= end) return undefined;
  const count = bytes[at++];
  if (count > MAX_ARRIVALS) return undefined;
  const arrivals: Arrival[] = [];
  for (let i = 0; i < count; i++) {
    const number = readBounded(bytes, at, end);
    if (number < 0) return undefined;
    at += varintLengthFrom(bytes[at]);
    if (at + CLOCK_BYTES > end) return undefined;
    arrivals.push({ sequence: number, clock: readUint32(bytes, at) });
    at += CLOCK_BYTES;
  }
  return { clock, wantsAnswer, sequence, arrivals };
}

/** @returns -1 if it does not end before `end` */
function readBounded(bytes: Uint8Array, at: number, end: number): number {
  return at < end && at + varintLengthFrom(bytes[at]) <= end ? readVarint(bytes, at) : -1;
}
