/**
 * Recognises flows whose senders slow down after a loss, and flows that suffer from reordering.
 *
 * A datagram does not say so, but its first byte identifies QUIC and WireGuard (RFC 9443 §2). QUIC's short header begins with 0x40 to 0x7f,
 * and header protection makes the lower bits look random (RFC 9001 §5.4), so datagrams that all begin with the same byte are not QUIC.
 * WireGuard's data messages begin with 4 and three zeros, and are padded to 16 bytes. Bytes from 0x40 to 0x4f prove nothing, as TURN's
 * channels, which carry media, begin with them too; handshakes prove nothing either. A flow counts as *responsive* after a dozen such
 * datagrams, until two or three of another kind. Its queue may be longer, because its sender ends the queue by slowing down.
 *
 * QUIC declares a packet lost for good when the third packet after it arrives, or an eighth of a round trip after the next one (RFC 9002
 * §6.1), so it needs *order*. TCP inside WireGuard does not need it: RACK (RFC 8985) learns the extent of reordering and undoes wrong
 * reactions, so TCP gains more from immediate delivery than it loses by reordering. QUIC flows that send little are not put back in order
 * either: a call wants each datagram at once.
 */
import type { FlowTable } from "./flow-table.ts";

/** Kinds of datagrams. */
const UNCLEAR = 0;
const OTHER = 1;
const QUIC = 2;
const WIREGUARD = 3;

/** First bytes. */
const QUIC_SHORT = 0x40;
const TURN_END = 0x50;
const QUIC_SHORT_END = 0x80;
const QUIC_LONG = 0xc0;
const WIREGUARD_DATA = 4;
const WIREGUARD_BLOCK_BYTES = 16;
const MIN_WIREGUARD_BYTES = 32;
/** Datagrams needed as evidence, the most that is kept, and what one datagram of another kind takes back. */
const ENOUGH_EVIDENCE = 12;
const MOST_EVIDENCE = 16;
const COUNTEREVIDENCE = 4;
/** What a repeated first byte takes back. QUIC repeats one in sixteen times by chance. */
const REPEATED = 2;
/** Payload rate, in bytes per millisecond, below which a flow sends little: half of the sender's limit for a sparse flow. */
const LITTLE_RATE = 50;
const RATE_WINDOW_MS = 100;

/** Takes a datagram to be sent as evidence about its flow. */
export function noteSent(
  flows: FlowTable,
  flow: number,
  data: Uint8Array,
  offset: number,
  length: number,
): void {
  const kind = kindOf(data, offset, length);
  if (kind === UNCLEAR) return;
  const quic = kind === QUIC ? quicEvidence(flows.outFirst, flow, data[offset]) : -COUNTEREVIDENCE;
  weigh(flows.outEvidence, flow, kind === WIREGUARD ? 1 : quic);
  weigh(flows.outOrder, flow, quic);
}

/** Whether the sender of an outgoing flow slows down after a loss. */
export function isResponsive(flows: FlowTable, flow: number): boolean {
  return flows.outEvidence[flow] >= ENOUGH_EVIDENCE;
}

/** Whether the other end probably puts an outgoing flow back in order. */
export function isOrdered(flows: FlowTable, flow: number): boolean {
  return flows.outOrder[flow] >= ENOUGH_EVIDENCE;
}

function weigh(evidence: Uint8Array, flow: number, weight: number): void {
  evidence[flow] = Math.max(0, Math.min(MOST_EVIDENCE, evidence[flow] + weight));
}

/** Evidence from the first byte of a datagram that could be QUIC: for it if the byte has changed, against it if not. */
function quicEvidence(first: Uint8Array, flow: number, byte: number): number {
  const isSame = first[flow] === byte;
  first[flow] = byte;
  return isSame ? -REPEATED : 1;
}

/** Takes an arriving datagram as evidence about its flow. @returns whether the flow needs order and sends more than a little */
export function wantsOrder(
  now: number,
  flows: FlowTable,
  flow: number,
  data: Uint8Array,
  offset: number,
  length: number,
): boolean {
  flows.reserve(flow);
  flows.inBytes[flow] += length;
  const elapsed = now - flows.inWindowAt[flow];
  if (elapsed > RATE_WINDOW_MS) {
    flows.inRate[flow] = 0.5 * flows.inRate[flow] + (0.5 * flows.inBytes[flow]) / elapsed;
    flows.inWindowAt[flow] = now;
    flows.inBytes[flow] = 0;
  }
  const kind = kindOf(data, offset, length);
  if (kind === QUIC) weigh(flows.inEvidence, flow, quicEvidence(flows.inFirst, flow, data[offset]));
  else if (kind !== UNCLEAR) weigh(flows.inEvidence, flow, -COUNTEREVIDENCE);
  const isMuch = flows.inRate[flow] >= LITTLE_RATE || flows.inBytes[flow] >= LITTLE_RATE * RATE_WINDOW_MS;
  return isMuch && flows.inEvidence[flow] >= ENOUGH_EVIDENCE;
}

function kindOf(data: Uint8Array, offset: number, length: number): number {
  if (length === 0) return OTHER;
  const first = data[offset];
  if (first >= QUIC_LONG || (first >= QUIC_SHORT && first < TURN_END)) return UNCLEAR;
  if (first >= TURN_END && first < QUIC_SHORT_END) return QUIC;
  const isWireguard =
    first >= 1 &&
    first <= WIREGUARD_DATA &&
    length >= MIN_WIREGUARD_BYTES &&
    (data[offset + 1] | data[offset + 2] | data[offset + 3]) === 0;
  if (!isWireguard) return OTHER;
  if (first < WIREGUARD_DATA) return UNCLEAR;
  return length % WIREGUARD_BLOCK_BYTES === 0 ? WIREGUARD : OTHER;
}
