import {
  encodeAssociationClose,
  encodeAssociationOpen,
  encodeCompressionAck,
  encodeCompressionAssign,
  encodeCompressionClose,
  encodeContextAssign,
  encodeDscp,
  encodeHeartbeat,
  encodeHeartbeatEcho,
  encodeLatencyClass,
  encodeShutdown,
  encodeUnreachable,
} from "../../src/wire/capsule.ts";
import { encodeMeasure, encodeProbe, MAX_PROBES } from "../../src/wire/probe.ts";
import {
  MAX_RECEIPT_BYTES,
  ReceiptWriter,
  SEQUENCE_MODULUS,
  sequencedHeaderLength,
  writeSequencedHeader,
} from "../../src/wire/receipt.ts";
import type { AddressBytes } from "../../src/wire/socket-address.ts";
import { ATYP_DOMAIN, makeAddress } from "../../src/wire/socket-address.ts";
import { varintLength, writeVarint } from "../../src/wire/varint.ts";
import { mutate, randomBytes } from "../unit/random.ts";

/** Limits of ids at both ends, and what lies beyond them. */
const IDS = [0, 1, 2, 3, 4, 5, 6, 8, 63, 64, 16_384, 2 ** 30 - 2, 2 ** 30 - 1, 2 ** 30, 2 ** 40];
const CLOCKS = [0, 1, 1_000, 2 ** 30, 2 ** 50];
const NUMBERS = [0, 1, 5, 20, 63, 64, 1_000, 32_768, 2 ** 30, 2 ** 50];
const TARGETS = [
  ...["192.0.2.1", "192.0.2.2", "10.0.0.1", "2001:db8::1", "::ffff:192.0.2.1"],
  ...["example.test", "missing.test"],
].map((host, index) => makeAddress(host, 50 + index)!);

/** Draws numbers, and picks from lists by them. */
export class Dice {
  readonly random: () => number;

  /** @param random  returns 32 bits */
  constructor(random: () => number) {
    this.random = random;
  }

  below(limit: number): number {
    return this.random() % limit;
  }

  isOneIn(count: number): boolean {
    return this.below(count) === 0;
  }

  pick<T>(values: readonly T[]): T {
    return values[this.below(values.length)];
  }

  /** An id: usually one of few small ones, so that they meet again; sometimes at a limit. */
  id(): number {
    return this.isOneIn(4) ? this.pick(IDS) : 1 + this.below(24);
  }

  /** The sender of an answer: often a target. */
  ip(): AddressBytes {
    const target = this.target();
    return target[0] === ATYP_DOMAIN ? TARGETS[0] : target;
  }

  target(): AddressBytes {
    const target = this.pick(TARGETS);
    if (!this.isOneIn(4)) return target;
    return makeAddress(`192.0.2.${this.below(256)}`, 1 + this.below(65_535))!;
  }
}

type Draw = (dice: Dice, hasReceipts: boolean) => Uint8Array;

/** Capsules that a client may send. Their order, ids and repetitions may be wrong. */
const LAWFUL: readonly Draw[] = [
  (dice) => {
    const id = dice.isOneIn(4) ? 1 + dice.below(24) : 1 + dice.below(4);
    return encodeAssociationOpen(id, dice.isOneIn(2) ? undefined : dice.target());
  },
  (dice) => {
    // The same id always stands for the same association and address, because another meaning is a fault.
    const number = dice.below(40);
    return encodeContextAssign(2 + 2 * number, 1 + (number % 4), TARGETS[number % TARGETS.length]);
  },
  datagram,
  datagram,
  datagram,
  (dice) => encodeCompressionAck(dice.id()),
  (dice) => encodeCompressionClose(1 + dice.below(80)),
  (dice) => encodeAssociationClose(1 + dice.below(30), dice.pick(["done", "idle", "failed"])),
  (dice) => encodeHeartbeat(dice.pick(NUMBERS), dice.pick(CLOCKS)),
  (dice) => encodeHeartbeatEcho(dice.pick(NUMBERS), dice.pick(CLOCKS)),
  (dice) => encodeLatencyClass(dice.id(), dice.below(5)),
  (dice) => encodeDscp(dice.id(), dice.below(80)),
  (dice) => {
    const [periodMs, leadMs, gapMs, count, bytes] = Array.from({ length: 5 }, () => dice.pick(NUMBERS));
    return encodeMeasure({ periodMs, leadMs, gapMs, count, bytes });
  },
  (dice) => {
    const arrivals = Array.from({ length: dice.below(25) }, () => ({
      sequence: dice.below(MAX_PROBES),
      clock: dice.random(),
    }));
    const sequence = dice.pick([0, 1, 5, MAX_PROBES]);
    return encodeProbe({ clock: dice.random(), wantsAnswer: dice.isOneIn(2), sequence, arrivals }, 0);
  },
  (dice, hasReceipts) => (hasReceipts ? receipt(dice) : unknownCapsule(dice)),
  (dice, hasReceipts) => (hasReceipts ? receipt(dice) : datagram(dice, hasReceipts)),
  unknownCapsule,
];

/** Capsules that end the connection or the session, or might. */
const FATAL: readonly Draw[] = [
  (dice) => encodeShutdown(dice.pick(["done", "failed", "key", "moving"])),
  (dice) => encodeUnreachable(dice.id(), "port", 0),
  (dice) => encodeCompressionAssign(dice.id(), dice.isOneIn(2) ? undefined : dice.target()),
  (dice) => encodeAssociationOpen(dice.pick(IDS), undefined),
  (dice) => encodeContextAssign(dice.pick(IDS), dice.pick(IDS), dice.target()),
  () => encodeCompressionClose(0),
  (dice) => randomBytes(dice.random, 1 + dice.below(40)),
  // A capsule that never ends.
  (dice) => Uint8Array.of(...varint(0x29 * 7 + 0x17), ...varint(2 ** 40), dice.below(256)),
  (dice, hasReceipts) => mutate(dice.random, dice.pick(LAWFUL)(dice, hasReceipts)),
];

/** One capsule, or what looks like one. @param lawful  whether it is surely one that a client may send */
export function drawCapsule(dice: Dice, hasReceipts: boolean, lawful: boolean): Uint8Array {
  return dice.pick(lawful ? LAWFUL : FATAL)(dice, hasReceipts);
}

/** A DATAGRAM. Sequence numbers repeat, jump, and come from long ago. */
function datagram(dice: Dice, hasReceipts: boolean): Uint8Array {
  const sequence = dice.pick([dice.below(100), dice.below(SEQUENCE_MODULUS), SEQUENCE_MODULUS - 1]);
  return encodeDatagram(dice.below(84), hasReceipts ? sequence : undefined, dice.below(40));
}

/** @param sequence  undefined without receipts */
export function encodeDatagram(context: number, sequence: number | undefined, length: number): Uint8Array {
  if (sequence !== undefined) {
    const bytes = new Uint8Array(sequencedHeaderLength(context, length) + length);
    writeSequencedHeader(bytes, 0, context, sequence, length);
    return bytes;
  }
  const head = [0, ...varint(varintLength(context) + length), ...varint(context)];
  return Uint8Array.of(...head, ...new Uint8Array(length));
}

/** A RECEIPT for frames that were never sent, with gaps and jumps, on lanes that may not exist. */
function receipt(dice: Dice): Uint8Array {
  const bytes = new Uint8Array(MAX_RECEIPT_BYTES);
  const writer = new ReceiptWriter();
  writer.begin(bytes, 0, dice.random());
  for (let items = dice.below(33); items > 0; items--) {
    const age = dice.pick([0, 1_000, 0x3fff_ffff, dice.random() >>> 2]);
    writer.add(dice.below(dice.isOneIn(4) ? 256 : 8), dice.below(65_536), age);
  }
  return bytes.slice(0, writer.end());
}

function unknownCapsule(dice: Dice): Uint8Array {
  const length = dice.pick([0, 1, 40, 400]);
  return Uint8Array.of(
    ...varint(0x29 * dice.below(1_000) + 0x17),
    ...varint(length),
    ...new Uint8Array(length),
  );
}

function varint(number: number): Uint8Array {
  const bytes = new Uint8Array(varintLength(number));
  writeVarint(bytes, 0, number);
  return bytes;
}
