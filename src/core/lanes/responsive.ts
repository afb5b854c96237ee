/**
 * Which flows slow down for what they take for loss, and which of them lose by datagrams that overtake each other.
 *
 * Nothing in a datagram says so, but QUIC and WireGuard can be told from all else by the first byte (RFC 9443 §2): that of QUIC's short
 * header is 0x40 to 0x7f, the lower bits of it as good as random (RFC 9001 §5.4), so that datagrams which all begin with the same byte
 * are something else; and WireGuard's data begins with 4 and three zeros and
 * is padded to 16 bytes. 0x40 to 0x4f says nothing, as TURN's channels, which carry media, begin with it too; nor do handshakes. A flow
 * is believed to be *responsive* after a dozen such datagrams, and until the second or third of another kind. Its queue may
 * be longer, as it ends it by itself.
 *
 * QUIC takes a packet for lost when the third after it has arrived, or an eighth of a round trip after the next one (RFC 9002 §6.1), for
 * good: it *wants order*. TCP in WireGuard does not: RACK (RFC 8985) learns how far packets overtake each other and takes back what it
 * did in error, and gains more by packets that come at once than it loses. One that sends little is left alone, too: what is said in a
 * call shall come when it comes.
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
/** As many datagrams speak for a flow, and so many at most; and one that speaks against it takes that many back. */
const ENOUGH_EVIDENCE = 12;
const MOST_EVIDENCE = 16;
const COUNTEREVIDENCE = 4;
/** What a first byte takes back that is the last one again, as one of QUIC's is once in sixteen times. */
const REPEATED = 2;
/** Bytes per millisecond of payload below which a flow sends little: half of what its sender calls so. */
const LITTLE_RATE = 50;
const RATE_WINDOW_MS = 100;

/** Notes a datagram of a flow that is to be sent. */
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

/** Whether what is sent of a flow comes from a sender that slows down. */
export function isResponsive(flows: FlowTable, flow: number): boolean {
  return flows.outEvidence[flow] >= ENOUGH_EVIDENCE;
}

/** Whether what is sent of a flow is to be put back in order at the other end. */
export function isOrdered(flows: FlowTable, flow: number): boolean {
  return flows.outOrder[flow] >= ENOUGH_EVIDENCE;
}

function weigh(evidence: Uint8Array, flow: number, weight: number): void {
  evidence[flow] = Math.max(0, Math.min(MOST_EVIDENCE, evidence[flow] + weight));
}

/** What the first byte of a datagram that may be QUIC's says, as the last one's was another one, or the same. */
function quicEvidence(first: Uint8Array, flow: number, byte: number): number {
  const isSame = first[flow] === byte;
  first[flow] = byte;
  return isSame ? -REPEATED : 1;
}

/** Notes a datagram of a flow that has arrived. @returns whether its flow wants order, and sends much */
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
