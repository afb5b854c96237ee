/**
 * The state of sessions as bytes. A server writes it when it ends for a restart, and the next process reads it to continue the sessions.
 * The reader trusts these bytes no more than the network: it checks every length, and every number against the limits of the protocol.
 *
 *     magic 8 | version 1 | clock 8 | sessions 4 | session*
 *
 * Integers are in network order. Durations are IEEE 754 doubles, in milliseconds. Texts and addresses follow their length in two bytes.
 */
import { MAX_DSCP } from "../../../wire/capsule.ts";
import { asciiBytes } from "../../../wire/http/http-head.ts";
import { SEQUENCE_MODULUS } from "../../../wire/receipt.ts";
import type { AddressBytes } from "../../../wire/socket-address.ts";
import { ATYP_DOMAIN } from "../../../wire/socket-address.ts";
import { SESSION_ID_BYTES } from "../../handshakes/credentials.ts";
import type { Arrived, LaneProgress } from "../../lanes/lane-progress.ts";
import { MAX_HOLES, WINDOW } from "../../lanes/receiving/duplicate-window.ts";
import { MAX_ID } from "../../session/session-model.ts";
import type { IdRange } from "../sessions/used-ids.ts";
import { MAX_RANGES } from "../sessions/used-ids.ts";
import { broken, StateReader, StateWriter } from "./state-bytes.ts";

const MAGIC = asciiBytes("UDPKEPT\n");
const VERSION = 1;
const KEY_BYTES = 32;
export const PROOF_BYTES = 16;
const MAX_NAME_BYTES = 64;
const LATENCY_CLASS_COUNT = 3;
const NO_LATENCY = 255;
const MAX_ANSWERS = 2;
const MAX_NUMBER = 0xffff_ffff;

/** An association of a {@link KeptSession}. */
export interface KeptAssociation {
  readonly id: number;
  readonly source: AddressBytes | undefined;
  /** Like `dscp` and `answers`, as in `ServerAssociations`. */
  readonly latency: number;
  readonly dscp: number;
  readonly answers: number;
  readonly idleMs: number;
  /** Ports of its sockets for IPv4 and IPv6; 0 if it has none. */
  readonly ports: readonly [number, number];
}

/** A context that both ends know, or, in a session with receipts, one of the server's that the client has not acknowledged. */
export interface KeptContext {
  readonly id: number;
  readonly association: number;
  readonly address: AddressBytes;
  /** Where its datagrams go: the address, or what its name resolved to. */
  readonly target: AddressBytes;
  readonly isAcked: boolean;
  readonly idleMs: number;
}

/** A session that clients can resume. */
export interface KeptSession {
  readonly id: Uint8Array;
  readonly key: Uint8Array;
  /** Proof of the key that its client has, in {@link PROOF_BYTES}. Only a server with the same key continues the session. */
  readonly proof: Uint8Array;
  /** Name of that key; undefined for the shared key, or none. */
  readonly holder: string | undefined;
  /** The number in its name. */
  readonly number: number;
  readonly nextContextId: number;
  /** How much longer it may linger without a lane. */
  readonly lingerMs: number;
  /** Set in a session with receipts. */
  readonly receipts: KeptReceipts | undefined;
  readonly associations: readonly KeptAssociation[];
  readonly contexts: readonly KeptContext[];
}

export interface KeptReceipts {
  readonly progress: LaneProgress;
  readonly closedAssociations: readonly IdRange[];
  readonly closedContexts: readonly IdRange[];
}

export interface KeptSessions {
  /** When the sessions were saved, in milliseconds of a clock that both processes share. */
  readonly clock: number;
  readonly sessions: readonly KeptSession[];
}

export function encodeKeptSessions({ clock, sessions }: KeptSessions): Uint8Array {
  const writer = new StateWriter();
  writer.bytes(MAGIC);
  writer.uint8(VERSION);
  writer.float64(clock);
  writer.uint32(sessions.length);
  for (const session of sessions) writeSession(writer, session);
  return writer.finish();
}

function writeSession(writer: StateWriter, session: KeptSession): void {
  writer.bytes(session.id);
  writer.bytes(session.key);
  writer.bytes(session.proof);
  writer.sized(asciiBytes(session.holder ?? ""));
  writer.uint32(session.number);
  writer.uint32(session.nextContextId);
  writer.float64(session.lingerMs);
  writer.uint8(session.receipts === undefined ? 0 : 1);
  if (session.receipts !== undefined) writeReceipts(writer, session.receipts);
  writer.uint32(session.associations.length);
  for (const { id, source, latency, dscp, answers, idleMs, ports } of session.associations) {
    writer.uint32(id);
    writer.sized(source);
    writer.uint8(latency);
    writer.uint8(dscp);
    writer.uint8(answers);
    writer.float64(idleMs);
    writer.uint16(ports[0]);
    writer.uint16(ports[1]);
  }
  writer.uint32(session.contexts.length);
  for (const { id, association, address, target, isAcked, idleMs } of session.contexts) {
    writer.uint32(id);
    writer.uint32(association);
    writer.sized(address);
    writer.sized(target === address ? undefined : target);
    writer.uint8(isAcked ? 1 : 0);
    writer.float64(idleMs);
  }
}

function writeReceipts(
  writer: StateWriter,
  { progress, closedAssociations, closedContexts }: KeptReceipts,
): void {
  writer.uint32(progress.nextSequence);
  writer.float64(progress.clock);
  const { arrived } = progress;
  writer.uint8(arrived === undefined ? 0 : 1);
  if (arrived !== undefined) {
    writer.uint32(arrived.highest);
    writer.uint16(arrived.holes.length);
    for (const { distance, length } of arrived.holes) {
      writer.uint32(distance);
      writer.uint32(length);
    }
  }
  for (const ranges of [closedAssociations, closedContexts]) {
    writer.uint16(ranges.length);
    for (const { first, last } of ranges) {
      writer.uint32(first);
      writer.uint32(last);
    }
  }
}

/** Decodes the state of sessions. @throws HostError ERR_KEPT_SESSIONS if the bytes are not exactly one valid state of this version */
export function decodeKeptSessions(bytes: Uint8Array): KeptSessions {
  const reader = new StateReader(bytes);
  const magic = reader.bytes(MAGIC.length);
  if (magic.some((byte, i) => byte !== MAGIC[i])) throw broken("it does not begin with the expected bytes");
  const version = reader.uint8();
  if (version !== VERSION) throw broken(`it has version ${version}, this program reads ${VERSION}`);
  const clock = reader.float64();
  const ids = new Set<string>();
  const sessions = reader.list(reader.uint32(), () => {
    const session = readSession(reader);
    if (!isNew(ids, String(session.id))) throw broken("two sessions have the same id");
    return session;
  });
  reader.end();
  return { clock, sessions };
}

function readSession(reader: StateReader): KeptSession {
  const id = reader.bytes(SESSION_ID_BYTES);
  const key = reader.bytes(KEY_BYTES);
  const proof = reader.bytes(PROOF_BYTES);
  const name = reader.sized(MAX_NAME_BYTES);
  const number = reader.integer(1, MAX_NUMBER - 1);
  const nextContextId = reader.integer(1, MAX_ID + 2);
  if (nextContextId % 2 === 0) throw broken("the server's next context has an even id");
  const lingerMs = reader.float64();
  const receipts = reader.boolean() ? readReceipts(reader) : undefined;
  const associationIds = new Set<number>();
  const associations = reader.list(reader.uint32(), () => {
    const association = readAssociation(reader);
    if (!isNew(associationIds, association.id)) throw broken("two associations have the same id");
    return association;
  });
  const contextIds = new Set<number>();
  const addresses = new Set<string>();
  const contexts = reader.list(reader.uint32(), () => {
    const context = readContext(reader);
    const { id: contextId, association, address, isAcked } = context;
    if (!associationIds.has(association)) throw broken("a context has no association");
    if (!isNew(contextIds, contextId)) throw broken("two contexts have the same id");
    if (!isNew(addresses, `${association} ${address}`)) throw broken("an address has two contexts");
    const isOwn = contextId % 2 === 1;
    if (isOwn && contextId >= nextContextId)
      throw broken("a context of the server has an id that was never assigned");
    if (!isAcked && !(isOwn && receipts !== undefined))
      throw broken("a context that is always acknowledged is not");
    return context;
  });
  const holder = name.length === 0 ? undefined : String.fromCharCode(...name);
  return { id, key, proof, holder, number, nextContextId, lingerMs, receipts, associations, contexts };
}

function readReceipts(reader: StateReader): KeptReceipts {
  const nextSequence = reader.integer(0, SEQUENCE_MODULUS - 1);
  const clock = reader.float64();
  const arrived = reader.boolean() ? readArrived(reader) : undefined;
  const [closedAssociations, closedContexts] = [0, 1].map(() => {
    const count = reader.uint16();
    if (count > MAX_RANGES) throw broken("too many ranges of ids");
    let before = -1;
    return reader.list(count, () => {
      const first = reader.integer(before + 1, MAX_ID);
      const last = reader.integer(first, MAX_ID);
      before = last + 1;
      return { first, last };
    });
  });
  return { progress: { nextSequence, clock, arrived }, closedAssociations, closedContexts };
}

function readArrived(reader: StateReader): Arrived {
  const highest = reader.integer(0, SEQUENCE_MODULUS - 1);
  const count = reader.uint16();
  if (count > MAX_HOLES) throw broken("too many holes");
  const holes = reader.list(count, () => {
    const distance = reader.integer(1, WINDOW - 1);
    return { distance, length: reader.integer(1, distance) };
  });
  return { highest, holes };
}

function readAssociation(reader: StateReader): KeptAssociation {
  const id = reader.integer(1, MAX_ID);
  const source = reader.address();
  const latency = reader.uint8();
  if (latency >= LATENCY_CLASS_COUNT && latency !== NO_LATENCY)
    throw broken(`${latency} is no latency class`);
  const dscp = reader.uint8();
  const answers = reader.uint8();
  if (dscp > MAX_DSCP || answers > MAX_ANSWERS)
    throw broken(`an association has DSCP ${dscp} and ${answers} answers`);
  const idleMs = reader.float64();
  return { id, source, latency, dscp, answers, idleMs, ports: [reader.uint16(), reader.uint16()] };
}

function readContext(reader: StateReader): KeptContext {
  const id = reader.integer(1, MAX_ID);
  const association = reader.integer(1, MAX_ID);
  const address = reader.address();
  const resolved = reader.address();
  if (address === undefined) throw broken("a context has no address");
  const isName = address[0] === ATYP_DOMAIN;
  if (isName !== (resolved !== undefined) || resolved?.[0] === ATYP_DOMAIN) {
    throw broken("a name has no address, or an address has a second one");
  }
  if (isName && id % 2 === 1) throw broken("a context of the server has a name");
  const isAcked = reader.boolean();
  return { id, association, address, target: resolved ?? address, isAcked, idleMs: reader.float64() };
}

function isNew<Value>(known: Set<Value>, value: Value): boolean {
  const { size } = known;
  return known.add(value).size > size;
}
