import { createHmac } from "node:crypto";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { describe, expect, it } from "vitest";
import type { Transcript } from "../../../../src/core/handshakes/credentials.ts";
import {
  challengeMac,
  deriveSessionKey,
  keyEpoch,
  keyId,
  keyRefusalMac,
  requestMac,
  responseMac,
} from "../../../../src/core/handshakes/credentials.ts";
import {
  datagramHeaderLength,
  encodeAssociationClose,
  encodeAssociationOpen,
  encodeCompressionAck,
  encodeContextAssign,
  encodeDscp,
  encodeHeartbeat,
  encodeHeartbeatEcho,
  encodeLatencyClass,
  encodeShutdown,
  encodeUnreachable,
  writeDatagramHeader,
} from "../../../../src/wire/capsule.ts";
import { decodeHead } from "../../../../src/wire/http/http-head.ts";
import {
  BIND_PATH,
  decodeUpgradeRequest,
  decodeUpgradeResponse,
  encodeChallengeResponse,
  encodeKeyRefusal,
  encodeUpgradeRequest,
  encodeUpgradeResponse,
} from "../../../../src/wire/http/upgrade.ts";
import { LATENCY_CLASSES } from "../../../../src/wire/latency-class.ts";
import { encodeParityLimit } from "../../../../src/wire/parity.ts";
import { encodeMeasure, encodeProbe } from "../../../../src/wire/probe.ts";
import {
  MAX_RECEIPT_BYTES,
  ReceiptWriter,
  sequencedHeaderLength,
  writeSequencedHeader,
} from "../../../../src/wire/receipt.ts";
import { makeAddress } from "../../../../src/wire/socket-address.ts";
import { encodeParity } from "../../lanes/parity/encode-parity.ts";

const text = readFileSync(resolve(import.meta.dirname, "../../../../PROTOCOL.md"), "utf8");

/** A fenced block of PROTOCOL.md §8 by its name. */
function block(kind: "hex" | "http", name: string): string {
  const match = new RegExp(`^\`\`\`${kind} ${name}\\n([^\`]*)\\n\`\`\`$`, "m").exec(text);
  if (match === null) throw new Error(`PROTOCOL.md has no block ${name}`);
  return match[1];
}

const hex = (name: string) => Uint8Array.from(Buffer.from(block("hex", name).replace(/\s/g, ""), "hex"));
const http = (name: string) =>
  new TextEncoder().encode(`${block("http", name).replaceAll("\n", "\r\n")}\r\n\r\n`);

const crypto = {
  hmac: (key: Uint8Array, data: Uint8Array) =>
    new Uint8Array(createHmac("sha256", key).update(data).digest()),
  random: () => new Uint8Array(0),
};
const psk = new TextEncoder().encode("sixteen byte key");
const firstNonce = new Uint8Array(16).fill(1);
const nonce = new Uint8Array(16).fill(4);
const ticket = new Uint8Array(24).fill(5);
const serverNonce = new Uint8Array(16).fill(2);
const session = new Uint8Array(16).fill(3);
const first = { nonce: firstNonce, lane: 0, ticket: undefined, session: undefined };
const transcript = { nonce, lane: 0, ticket: { bytes: ticket, age: 40 }, session: undefined };

function datagram(context: number, payload: string): Uint8Array {
  const bytes = new Uint8Array(datagramHeaderLength(context, payload.length) + payload.length);
  bytes.set(new TextEncoder().encode(payload), writeDatagramHeader(bytes, 0, context, payload.length));
  return bytes;
}

function sequencedDatagram(context: number, sequence: number, payload: string): Uint8Array {
  const bytes = new Uint8Array(sequencedHeaderLength(context, payload.length) + payload.length);
  const at = writeSequencedHeader(bytes, 0, context, sequence, payload.length);
  bytes.set(new TextEncoder().encode(payload), at);
  return bytes;
}

function receipt(clock: number, lane: number, count: number, age: number): Uint8Array {
  const bytes = new Uint8Array(MAX_RECEIPT_BYTES);
  const writer = new ReceiptWriter();
  writer.begin(bytes, 0, clock);
  writer.add(lane, count, age);
  return bytes.slice(0, writer.end());
}

/** The PARITY of datagrams with consecutive numbers. */
function parity(first: number, ...all: (readonly [context: number, text: string])[]): Uint8Array {
  const datagrams = all.map(([context, text], i) => {
    return { sequence: first + i, context, payload: new TextEncoder().encode(text) };
  });
  return encodeParity(datagrams).capsule;
}

describe("the worked example of PROTOCOL.md", () => {
  const mac = requestMac(crypto, psk, transcript);
  const answer = { nonce: serverNonce, session, resumed: false, receipts: false };
  const proof = responseMac(crypto, psk, mac, answer);

  it("has the same MACs and session key as the code", () => {
    expect(mac).toEqual(hex("request-mac"));
    expect(proof).toEqual(hex("response-mac"));
    expect(deriveSessionKey(crypto, psk, nonce, serverNonce, session)).toEqual(hex("session-key"));
  });

  it("has a request MAC over the fields that §3.1 lists, each after its length in two bytes", () => {
    const fields = ["underpass/1 request", BIND_PATH, nonce, "0", ticket, "40", ""].map((field) =>
      Buffer.from(field),
    );
    const input = Buffer.concat(
      fields.flatMap((field) => [Buffer.of(field.length >> 8, field.length & 255), field]),
    );
    expect(createHmac("sha256", psk).update(input).digest("hex")).toBe(
      Buffer.from(hex("request-mac")).toString("hex"),
    );
  });

  it("has the heads that the code writes and reads", () => {
    const requestOf = (fields: Transcript) =>
      encodeUpgradeRequest("server.example:3456", BIND_PATH, true, {
        ...fields,
        receipts: false,
        mac: requestMac(crypto, psk, fields),
        resumeMac: undefined,
      });
    const proofOfTicket = challengeMac(crypto, psk, firstNonce, ticket);
    const accepted = { ...answer, mac: proof };
    expect(requestOf(first)).toEqual(http("first-request"));
    expect(encodeChallengeResponse({ ticket, mac: proofOfTicket })).toEqual(http("challenge"));
    expect(requestOf(transcript)).toEqual(http("request"));
    expect(encodeUpgradeResponse(true, [], accepted)).toEqual(http("response"));
    const withReceipts = { ...answer, receipts: true };
    const otherProof = responseMac(crypto, psk, mac, withReceipts);
    expect(encodeUpgradeResponse(true, [], { ...withReceipts, mac: otherProof })).toEqual(
      http("response-with-receipts"),
    );
    const head = (name: string) => decodeHead(http(name), http(name).length)!;
    expect(decodeUpgradeResponse(head("challenge"))?.challenge).toEqual({ ticket, mac: proofOfTicket });
    expect(decodeUpgradeRequest(head("request"))).toMatchObject({ extension: { ...transcript, mac } });
    expect(decodeUpgradeResponse(head("response"))?.extension).toEqual(accepted);
  });

  it("has the id of a named key, and the answers that only its holder gets", () => {
    const id = keyId(crypto, psk, "alice", keyEpoch(1_800_000_000_000));
    expect(id).toEqual(hex("key-id"));
    const request = { ...first, keyId: id, receipts: false, resumeMac: undefined };
    const signed = { ...request, mac: requestMac(crypto, psk, first) };
    expect(encodeUpgradeRequest("server.example:3456", BIND_PATH, true, signed)).toEqual(
      http("first-request-with-key"),
    );
    const unixS = 1_800_010_800;
    const proofOfTime = challengeMac(crypto, psk, firstNonce, ticket, unixS);
    expect(encodeChallengeResponse({ ticket, unixS, mac: proofOfTime })).toEqual(http("challenge-with-time"));
    const refusal = encodeKeyRefusal({ cause: "expired", mac: keyRefusalMac(crypto, psk, mac, "expired") });
    expect(new TextDecoder().decode(refusal)).toContain(new TextDecoder().decode(http("key-refusal")));
  });

  it.each([
    ["association-open", encodeAssociationOpen(1, makeAddress("127.0.0.1", 40_000))],
    ["context-assign", encodeContextAssign(2, 1, makeAddress("192.0.2.1", 53)!)],
    ["context-assign-name", encodeContextAssign(4, 1, makeAddress("example.com", 443)!)],
    ["datagram", datagram(2, "hi")],
    ["ack", encodeCompressionAck(2)],
    ["answer", datagram(2, "ho")],
    ["context-assign-server", encodeContextAssign(1, 1, makeAddress("192.0.2.1", 54)!)],
    ["other-answer", datagram(1, "hm")],
    ["unreachable", encodeUnreachable(2, "port", 0)],
    ["unreachable-too-big", encodeUnreachable(1, "too-big", 1300)],
    ["latency-class", encodeLatencyClass(1, LATENCY_CLASSES.indexOf("interactive"))],
    ["dscp", encodeDscp(1, 46)],
    ["measure", encodeMeasure({ periodMs: 20, leadMs: 0, gapMs: 0, count: 500, bytes: 0 })],
    ["probe", encodeProbe({ clock: 1_000_000, wantsAnswer: false, sequence: 0, arrivals: [] }, 0)],
    [
      "probe-with-arrival",
      encodeProbe(
        { clock: 2_000_000, wantsAnswer: false, sequence: 0, arrivals: [{ sequence: 0, clock: 1_995_000 }] },
        0,
      ),
    ],
    ["heartbeat", encodeHeartbeat(7, 123_456)],
    ["heartbeat-echo", encodeHeartbeatEcho(7, 123_456)],
    ["association-close", encodeAssociationClose(1, "done")],
    ["shutdown", encodeShutdown("done")],
    ["datagram-with-sequence", sequencedDatagram(2, 0, "hi")],
    ["receipt", receipt(1_000_000, 0, 0x0405, 1_000)],
    ["parity-limit", encodeParityLimit(32)],
    ["parity", parity(0, [2, "hi"], [4, "hello"])],
  ])("has the bytes of %s", (name, bytes) => {
    expect(bytes).toEqual(hex(name));
  });
});
