import { expect } from "vitest";
import { DatagramStore } from "../../../../src/core/lanes/datagram-store.ts";
import { PARITY_CONTEXT, ParityGroup } from "../../../../src/core/lanes/parity/parity-group.ts";
import {
  MAX_PARITY_VALUE_BYTES,
  parityHeaderLength,
  writeParityHeader,
} from "../../../../src/wire/parity.ts";
import { SEQUENCE_BYTES } from "../../../../src/wire/receipt.ts";

export interface Datagram {
  readonly sequence: number;
  readonly context: number;
  readonly payload: Uint8Array;
}

/** The PARITY capsule of a group, and where its value begins. */
export function encodeParity(datagrams: readonly Datagram[]): { capsule: Uint8Array; valueOffset: number } {
  const store = new DatagramStore();
  const group = new ParityGroup(store);
  for (const { sequence, context, payload } of datagrams) {
    const entry = store.add(0, 0, context, 0, payload, 0, payload.length);
    store.sequence[entry] = sequence;
    group.add(0, entry, 1);
    store.release(entry);
  }
  const entry = group.take(0);
  expect(store.context[entry]).toBe(PARITY_CONTEXT);
  const length = store.length[entry];
  expect(SEQUENCE_BYTES + length).toBeLessThanOrEqual(MAX_PARITY_VALUE_BYTES);
  const capsule = new Uint8Array(parityHeaderLength(length) + length);
  const at = writeParityHeader(capsule, 0, store.sequence[entry], length);
  store.copyOut(entry, capsule, at);
  store.release(entry);
  expect([group.count, group.lanes, store.bytes]).toEqual([0, 0, 0]);
  return { capsule, valueOffset: at - SEQUENCE_BYTES };
}

/** The value of the PARITY of a group. */
export function parityOf(datagrams: readonly Datagram[]): Uint8Array {
  const { capsule, valueOffset } = encodeParity(datagrams);
  return capsule.slice(valueOffset);
}
