import { describe, expect, it } from "vitest";
import type { CloseReason, UnreachableKind } from "../../../src/wire/capsule.ts";
import {
  datagramHeaderLength,
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
  writeDatagramHeader,
} from "../../../src/wire/capsule.ts";
import { addressLength, addressPort, formatHost, makeAddress } from "../../../src/wire/socket-address.ts";
import { readVarint, writeVarint } from "../../../src/wire/varint.ts";
import { bytesOf, vectors } from "../vectors.ts";

const hexOf = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");

describe("vectors", () => {
  it.each(vectors("varints.json"))("varint: $name", ({ hex, value }) => {
    expect(readVarint(bytesOf(hex), 0)).toBe(value);
    const bytes = new Uint8Array(8);
    expect(hexOf(bytes.slice(0, writeVarint(bytes, 0, Number(value))))).toBe(hex);
  });

  it.each(vectors("addresses.json"))("address: $name", ({ hex, host, port }) => {
    const bytes = bytesOf(hex);
    expect(addressLength(bytes, 0, bytes.length)).toBe(bytes.length);
    expect([formatHost(bytes), addressPort(bytes)]).toEqual([host, port]);
    expect(hexOf(makeAddress(String(host), Number(port))!)).toBe(hex);
  });

  it.each(vectors("capsules.json"))("capsule: $name", (vector) => {
    const context = Number(vector.context);
    const association = Number(vector.association);
    const [sequence, clock] = [Number(vector.sequence), Number(vector.clock)];
    const address =
      vector.host === undefined ? undefined : makeAddress(String(vector.host), Number(vector.port));
    const reason = vector.reason as CloseReason;
    const encoders: Record<string, () => Uint8Array> = {
      datagram: () => {
        const payload = bytesOf(vector.payload);
        const bytes = new Uint8Array(datagramHeaderLength(context, payload.length) + payload.length);
        bytes.set(payload, writeDatagramHeader(bytes, 0, context, payload.length));
        return bytes;
      },
      "compression-assign": () => encodeCompressionAssign(context, address),
      "compression-ack": () => encodeCompressionAck(context),
      "compression-close": () => encodeCompressionClose(context),
      heartbeat: () => encodeHeartbeat(sequence, clock),
      "heartbeat-echo": () => encodeHeartbeatEcho(sequence, clock),
      "association-open": () => encodeAssociationOpen(association, address),
      "association-close": () => encodeAssociationClose(association, reason),
      "context-assign": () => encodeContextAssign(context, association, address!),
      shutdown: () => encodeShutdown(reason),
      "latency-class": () => encodeLatencyClass(association, Number(vector.class)),
      dscp: () => encodeDscp(association, Number(vector.dscp)),
      unreachable: () => encodeUnreachable(context, vector.reason as UnreachableKind, Number(vector.mtu)),
    };
    expect(hexOf(encoders[String(vector.kind)]())).toBe(vector.hex);
  });
});
