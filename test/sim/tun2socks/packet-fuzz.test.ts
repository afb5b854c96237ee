import { describe, expect, it } from "vitest";
import { parseRule } from "../../../src/core/tun2socks/rules.ts";
import { writeIpv4Checksum } from "../../../src/wire/ip/ipv4.ts";
import { writeUint16 } from "../../../src/wire/network-order.ts";
import {
  echoPacket,
  inspect,
  ipPacket,
  partialSum,
  tcpPacket,
  udpMessage,
  udpPacket,
} from "../../unit/packet-oracle.ts";
import { mutate, randomBytes, seededRandom } from "../../unit/random.ts";
import { bytesOf, vectors } from "../../unit/vectors.ts";
import { address, Device, LISTENER_PORT, OWN, PEER, VIRTIO_BYTES } from "./device.ts";

const PACKETS = 500_000;
const BATCH = 64;
const SLOT_BYTES = 2_048;
const MTU = 1_280;
const LIMITS = {
  maxAssociations: 200,
  maxFlows: 100,
  maxHalfOpen: 50,
  reassemblyBytes: 1024 * 1024,
  icmpErrorsPerSecond: 50,
};
const APPS = ["10.0.0.9", OWN[4], "fd00::9", OWN[6]];
const TARGETS = ["192.0.2.7", "192.0.2.7", "2001:db8::7", "2001:db8::7"];

/** Packets of honest programs, and a few that only dishonest ones send. */
function honestPackets(random: () => number): Uint8Array[] {
  const payload = Buffer.from(randomBytes(random, 60));
  const packets: Uint8Array[] = vectors("packets.json").map(({ hex }) => bytesOf(hex));
  for (const [i, app] of APPS.entries()) {
    const target = TARGETS[i];
    const port = 5_000 + i;
    packets.push(udpPacket(app, port, target, 443, payload), udpPacket(app, port, target, 99, payload));
    packets.push(udpPacket(app, port, target, 53, payload, { ttl: 1 }), echoPacket(app, target, payload));
    packets.push(
      echoPacket(app, PEER[i < 2 ? 4 : 6], payload),
      udpPacket(app, port, PEER[i < 2 ? 4 : 6], 1, payload),
    );
    packets.push(ipPacket({ source: app, destination: target, protocol: 47 }, payload));
    for (const flags of [0, 1, 2, 2, 2, 4, 16, 17, 18, 24]) {
      const segment = { source: app, sourcePort: port, destination: target, destinationPort: 443, flags };
      packets.push(tcpPacket({ ...segment, sequence: random(), acknowledgment: random(), payload }));
    }
  }
  return packets;
}

/** A datagram or a SYN from a new application. */
function newcomer(random: () => number): Uint8Array {
  const i = random() % 4;
  const [source, destination, port] = [APPS[i], TARGETS[i], 1 + (random() % 60_000)];
  if (random() % 2 === 0) return udpPacket(source, port, destination, 1 + (random() % 100), Buffer.alloc(5));
  const segment = { source, sourcePort: port, destination, destinationPort: 20 + (random() % 10) };
  return tcpPacket({ ...segment, sequence: random(), acknowledgment: 0, flags: 2 });
}

/** A datagram of a random application in two fragments. */
function fragments(random: () => number): [Uint8Array, Uint8Array] {
  const i = random() % 4;
  const [source, destination, identification] = [APPS[i], TARGETS[i], random() & 0xffff];
  const message = udpMessage(source, 5_000 + i, destination, 8, randomBytes(random, 72));
  const fragment = (offset: number, data: Uint8Array) => {
    const isFirst = offset === 0;
    if (i < 2) {
      const flags = (offset / 8) | (isFirst ? 0x2000 : 0);
      return ipPacket({ source, destination, protocol: 17, flags, identification }, data);
    }
    const header = Buffer.from([17, 0, 0, offset | (isFirst ? 1 : 0), 0, 0, 0, 0]);
    header.writeUInt16BE(identification, 6);
    return ipPacket({ source, destination, protocol: 44 }, Buffer.concat([header, data]));
  };
  return [fragment(0, message.subarray(0, 40)), fragment(40, message.subarray(40))];
}

/** A virtio-net header that matches a packet, which may leave its checksum to it, or one with impossible values. */
function virtioHeader(random: () => number, packet: Uint8Array): Buffer {
  const header = Buffer.alloc(VIRTIO_BYTES);
  const isIpv4 = packet[0] >> 4 === 4;
  const protocol = isIpv4 ? packet[9] : packet[6];
  const start = isIpv4 ? 20 : 40;
  const kind = random() % 4;
  if (kind > 1 && (protocol === 6 || protocol === 17)) {
    header[0] = 1;
    header.writeUInt16LE(start, 6);
    header.writeUInt16LE(protocol === 6 ? 16 : 6, 8);
    const checksumAt = start + (protocol === 6 ? 16 : 6);
    if (isRight(Buffer.from(packet), "whole")) writeUint16(packet, checksumAt, partialSum(packet));
    if (kind === 3) {
      header[1] = protocol === 17 ? 5 : isIpv4 ? 1 : 4;
      header.writeUInt16LE(start + 8, 2);
      header.writeUInt16LE(1 + (random() % 40), 4);
    }
  }
  return random() % 10 === 0 ? Buffer.from(mutate(random, header).subarray(0, VIRTIO_BYTES)) : header;
}

/** Corrects the length, and the header checksum of IPv4. */
function mend(packet: Uint8Array): void {
  const version = packet.length < 20 ? 0 : packet[0] >> 4;
  if (version === 4 && (packet[0] & 15) * 4 <= packet.length) {
    writeUint16(packet, 2, packet.length);
    writeIpv4Checksum(packet, 0);
  } else if (version === 6 && packet.length >= 40) writeUint16(packet, 4, packet.length - 40);
}

/** An IP packet without the bytes after its length. */
function trimmed(packet: Buffer): Buffer {
  const length = packet[0] >> 4 === 4 ? packet.readUInt16BE(2) : 40 + packet.readUInt16BE(4);
  return packet.subarray(0, length);
}

function isRight(packet: Buffer, checksum: "whole" | "partial"): boolean {
  try {
    inspect(packet, checksum);
    return true;
  } catch {
    return false;
  }
}

describe.each([false, true])("half a million random and mutated packets (virtio: %s)", (virtio) => {
  const random = seededRandom(virtio ? 11 : 10);
  const before = virtio ? VIRTIO_BYTES : 0;
  const device = new Device({
    virtio,
    uso: virtio,
    mtu: MTU,
    limits: LIMITS,
    rules: ["udp *:99 reject", "tcp *:25 reject", "udp domain:example.test drop"].map(parseRule),
  });
  const { core } = device;
  const honest = honestPackets(random);
  const data = Buffer.alloc(BATCH * SLOT_BYTES);
  const offsets = Int32Array.from({ length: BATCH }, (_, i) => i * SLOT_BYTES);
  const lengths = new Int32Array(BATCH);
  const flowPorts: { readonly family: 4 | 6; readonly port: number }[] = [];
  let reflected: Buffer[] = [];
  let second: Uint8Array | undefined;
  let highestSlot = 0;

  function fromListener(): Buffer {
    const { family, port } = flowPorts[random() % flowPorts.length];
    return tcpPacket({
      source: OWN[family],
      sourcePort: LISTENER_PORT,
      destination: PEER[family],
      destinationPort: port,
      sequence: random(),
      acknowledgment: random(),
      flags: [1, 4, 16, 18][random() % 4],
      payload: Buffer.alloc(random() % 40),
    });
  }

  function next(): Uint8Array {
    if (random() % 10 === 0) return randomBytes(random, random() % 100);
    if (second !== undefined) {
      const last = second;
      second = undefined;
      return last;
    }
    if (random() % 20 === 0) {
      const [first, last] = fragments(random);
      second = last;
      return random() % 4 === 0 ? mutate(random, first) : first;
    }
    if (random() % 20 === 0) return newcomer(random);
    const isAnswer = flowPorts.length > 0 && random() % 10 === 0;
    const packet = isAnswer ? fromListener() : honest[random() % honest.length];
    if (random() % 8 === 0) return packet;
    const mutant = random() % 2 === 0 ? mutate(random, packet) : Uint8Array.from(packet);
    mutant[random() % mutant.length] ^= 1 << (random() % 8);
    // Otherwise few would pass the first checks.
    if (random() % 8 > 0) mend(mutant);
    return mutant;
  }

  /** Passes core the first `count` packets of `data` and judges every packet that it writes. @returns the packets written */
  function exchange(count: number, isFirstRound: boolean): Buffer[] {
    const originals = Buffer.from(data);
    const out: Buffer[] = [];
    for (let from = 0; from < count; ) {
      const after = core.handlePackets(device.now, data, offsets, lengths, from, count);
      if (after === from) throw new Error("no progress");
      from = after;
      for (let output = core.pollOutput(); output !== undefined; output = core.pollOutput()) {
        if (output.kind === "association-open") highestSlot = Math.max(highestSlot, output.association);
      }
      const { datagrams, toDevice } = core;
      for (let i = 0; i < datagrams.count; i++) {
        const end = datagrams.offset[i] + datagrams.length[i];
        if (datagrams.length[i] < 0 || end > datagrams.buffer(i).length) throw new Error("past the end");
        if (!isFirstRound || i % 4 > 0) continue;
        const remote = address(i % 8 === 0 ? "192.0.2.7:443" : "[2001:db8::7]:443");
        const length = i % 64 === 0 ? 3_000 : 30;
        core.handleDatagram(device.now, datagrams.association[i], remote, originals, 0, length);
        if (i % 16 === 0) core.handleUnreachable(device.now, datagrams.association[i], remote, "port");
      }
      for (let i = 0; i < toDevice.count; i++) {
        const start = toDevice.offset[i];
        const written = Buffer.from(toDevice.buffer(i).subarray(start, start + toDevice.length[i]));
        judge(written, toDevice.isInput[i] === 1 ? originals.subarray(start, start + SLOT_BYTES) : undefined);
        out.push(written);
      }
      toDevice.clear();
    }
    return out;
  }

  function judge(written: Buffer, original: Buffer | undefined): void {
    const packet = written.subarray(before);
    const checksum = virtio && (written[0] & 1) === 1 ? "partial" : "whole";
    const { protocol, source, sourcePort, destination, destinationPort, version } = inspect(packet, "unseen");
    if (original === undefined) {
      const isUso = virtio && written[1] === 5;
      if (packet.length > MTU && !isUso) throw new Error("above the MTU");
      inspect(packet, checksum);
      return;
    }
    const family = version as 4 | 6;
    if (protocol === 1 || protocol === 58) inspect(packet, checksum);
    else {
      // A wrong checksum stays wrong, so that the receiver sees it; a right one stays right.
      const wasRight = isRight(trimmed(original.subarray(before)), checksum);
      if (isRight(packet, checksum) !== wasRight) throw new Error(`was right: ${wasRight}`);
      if (virtio && !written.subarray(0, before).equals(original.subarray(0, before)))
        throw new Error("virtio");
    }
    if (protocol === 6 && source === PEER[family]) {
      if (destination !== OWN[family]) throw new Error("not to the device");
      if (destinationPort !== LISTENER_PORT) throw new Error("not the port of the listener");
      flowPorts[Math.min(flowPorts.length, random() % 64)] = { family, port: sourcePort };
      if (random() % 8 === 0) core.acceptFlow(device.now, family, sourcePort);
    }
  }

  it("cause no exception, stay within all bounds, reflect for at most four rounds, and yield only well-formed packets", () => {
    let rounds = 0;
    for (let made = 0; made < PACKETS; made += BATCH) {
      device.now += 40;
      core.handleTimeout(device.now);
      for (let i = 0; i < BATCH; i++) {
        const packet = Uint8Array.from(next());
        const header = virtio ? virtioHeader(random, packet) : Buffer.alloc(0);
        header.copy(data, offsets[i]);
        data.set(packet.subarray(0, SLOT_BYTES - before), offsets[i] + before);
        lengths[i] = random() % 100 === 0 ? random() % 12 : header.length + packet.length;
      }
      reflected = exchange(BATCH, true);
      for (let round = 0; reflected.length > 0; round++) {
        rounds = Math.max(rounds, round);
        if (round === 4) throw new Error(`still reflected: ${reflected[0].toString("hex")}`);
        const back = reflected;
        reflected = [];
        for (let at = 0; at < back.length; at += BATCH) {
          const part = back.slice(at, at + BATCH);
          for (const [i, packet] of part.entries()) {
            packet.copy(data, offsets[i]);
            lengths[i] = packet.length;
          }
          reflected.push(...exchange(part.length, false));
        }
      }
    }
    expect(core.associationCount).toBeLessThanOrEqual(LIMITS.maxAssociations);
    expect(core.flowCount).toBeLessThanOrEqual(LIMITS.maxFlows);
    expect(core.halfOpenCount).toBeLessThanOrEqual(LIMITS.maxHalfOpen);
    expect(core.pendingReassemblies).toBeLessThanOrEqual(LIMITS.reassemblyBytes / 65_536);
    expect(highestSlot).toBeLessThan(LIMITS.maxAssociations + 1_024);
    // The test means something only if each of these happened often enough.
    const { drops, ...counts } = core.counters;
    const { malformed, bad_checksum, own_source, hop_limit, rule_reject, unknown_flow } = drops;
    const wanted = { ...counts, malformed, bad_checksum, own_source, hop_limit, rule_reject, unknown_flow };
    for (const [name, count] of Object.entries(wanted)) {
      if (name === "flowsEvicted") continue;
      expect({ name, isOften: count > 200 || count }).toEqual({ name, isOften: true });
    }
    expect(rounds).toBeGreaterThan(0);
  });

  it("leave core working, and all of its state expires", () => {
    device.written.length = 0;
    device.send(udpPacket("10.0.0.10", 1, "192.0.2.9", 53, Buffer.from("still here")));
    expect(String(device.sent.at(-1)?.payload)).toBe("still here");
    expect(device.send(echoPacket("10.0.0.10", "192.0.2.9", Buffer.alloc(8)))).toHaveLength(1);
    device.advance(8_000_000);
    expect([core.associationCount, core.flowCount, core.pendingReassemblies]).toEqual([0, 0, 0]);
    expect(core.nextTimeout()).toBe(Number.POSITIVE_INFINITY);
  });
});
