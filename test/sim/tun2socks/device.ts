import type { Tun2SocksOptions } from "../../../src/core/tun2socks/options.ts";
import { TUN2SOCKS_LIMITS } from "../../../src/core/tun2socks/options.ts";
import { ADDRESS_STRIDE } from "../../../src/core/tun2socks/packet-batch.ts";
import { ROUTE_SOCKS, ROUTE_TUNNEL } from "../../../src/core/tun2socks/rules.ts";
import type { Tun2SocksOutput } from "../../../src/core/tun2socks/tun2socks.ts";
import { Tun2Socks } from "../../../src/core/tun2socks/tun2socks.ts";

import type { AddressBytes } from "../../../src/wire/socket-address.ts";
import { formatAddress, makeAddress } from "../../../src/wire/socket-address.ts";
import type { Inspected } from "../../unit/packet-oracle.ts";
import { inspect, ip } from "../../unit/packet-oracle.ts";

export const LISTENER_PORT = 9000;
export const OWN = { 4: "10.255.0.1", 6: "fd00:255::1" } as const;
export const PEER = { 4: "10.255.0.2", 6: "fd00:255::2" } as const;
export const VIRTIO_BYTES = 10;

export interface Sent {
  readonly association: number;
  readonly remote: string;
  readonly payload: Buffer;
}

/** A packet written to the device; `raw` excludes its virtio-net header. */
export interface Written extends Inspected {
  readonly raw: Buffer;
  readonly virtio: Buffer;
}

export interface DeviceOptions extends Omit<Partial<Tun2SocksOptions>, "limits"> {
  readonly limits?: Partial<Tun2SocksOptions["limits"]>;
}

/** A `Tun2Socks` in virtual time. The slow oracle checks every packet that it writes. */
export class Device {
  now = 1_000;
  readonly core: Tun2Socks;
  readonly virtio: boolean;
  readonly sent: Sent[] = [];
  readonly events: Tun2SocksOutput[] = [];
  readonly written: Written[] = [];

  constructor({ limits, ...options }: DeviceOptions = {}) {
    this.virtio = options.virtio ?? false;
    this.core = new Tun2Socks({
      mtu: 1500,
      ipv4: { own: ip(OWN[4]), peer: ip(PEER[4]), listenerPort: LISTENER_PORT },
      ipv6: { own: ip(OWN[6]), peer: ip(PEER[6]), listenerPort: LISTENER_PORT },
      virtio: false,
      uso: false,
      hasTcpStack: false,
      rules: [],
      udpRoute: ROUTE_TUNNEL,
      tcpRoute: ROUTE_SOCKS,
      seed: 12_345,
      ...options,
      limits: { ...TUN2SOCKS_LIMITS, ...limits },
    });
  }

  /** Reads packets from the device in one batch; with virtio, each gets a header of zeros. @returns the packets written for them */
  send(...packets: Uint8Array[]): Written[] {
    const header = Buffer.alloc(this.virtio ? VIRTIO_BYTES : 0);
    return this.sendRaw(...packets.map((packet) => Buffer.concat([header, packet])));
  }

  sendRaw(...packets: Uint8Array[]): Written[] {
    const before = this.written.length;
    const data = Buffer.concat(packets);
    const lengths = Int32Array.from(packets, (packet) => packet.length);
    const offsets = new Int32Array(packets.length);
    for (let i = 1; i < packets.length; i++) offsets[i] = offsets[i - 1] + lengths[i - 1];
    for (let next = 0; next < packets.length; ) {
      const after = this.core.handlePackets(this.now, data, offsets, lengths, next, packets.length);
      if (after === next) throw new Error("no progress");
      next = after;
      this.#drainDatagrams();
      this.drain();
    }
    return this.written.slice(before);
  }

  /** Delivers a datagram for an association's application. */
  reply(association: number, remote: string, payload: Uint8Array): Written[] {
    const before = this.written.length;
    const wasTaken = this.core.handleDatagram(
      this.now,
      association,
      address(remote),
      payload,
      0,
      payload.length,
    );
    if (!wasTaken) throw new Error("no room");
    this.drain();
    return this.written.slice(before);
  }

  drain(): Written[] {
    const before = this.written.length;
    const { toDevice } = this.core;
    for (let i = 0; i < toDevice.count; i++) {
      const start = toDevice.offset[i];
      const bytes = Buffer.from(toDevice.buffer(i).subarray(start, start + toDevice.length[i]));
      const virtio = bytes.subarray(0, this.virtio ? VIRTIO_BYTES : 0);
      const raw = bytes.subarray(virtio.length);
      const isPartial = this.virtio && (virtio[0] & 1) === 1;
      const packet = inspect(raw, isPartial ? "partial" : "whole");
      if (isPartial) {
        if (raw.length - packet.message.length !== virtio.readUInt16LE(6)) throw new Error("csum_start");
        if (virtio.readUInt16LE(8) !== (packet.protocol === 6 ? 16 : 6)) throw new Error("csum_offset");
      }
      this.written.push({ ...packet, raw, virtio });
    }
    toDevice.clear();
    for (let output = this.core.pollOutput(); output !== undefined; output = this.core.pollOutput()) {
      this.events.push(output);
    }
    return this.written.slice(before);
  }

  /** Advances time and wakes core at each of its deadlines. */
  advance(ms: number): void {
    const until = this.now + ms;
    while (this.core.nextTimeout() <= until) {
      this.now = Math.max(this.now, this.core.nextTimeout());
      this.core.handleTimeout(this.now);
      this.drain();
    }
    this.now = until;
  }

  opened(): string[] {
    return this.events.flatMap((event) =>
      event.kind === "association-open"
        ? [`${event.association} ${formatAddress(event.source)} ${event.route}`]
        : [],
    );
  }

  #drainDatagrams(): void {
    const { datagrams } = this.core;
    for (let i = 0; i < datagrams.count; i++) {
      const at = i * ADDRESS_STRIDE;
      this.sent.push({
        association: datagrams.association[i],
        remote: formatAddress(datagrams.addresses.slice(at, at + datagrams.addressLength[i])),
        payload: Buffer.from(
          datagrams.buffer(i).subarray(datagrams.offset[i], datagrams.offset[i] + datagrams.length[i]),
        ),
      });
    }
  }
}

/** Address of `HOST:PORT`, IPv6 in brackets. */
export function address(text: string): AddressBytes {
  const [, host, port] = /^\[?([^\]]+)\]?:(\d+)$/.exec(text)!;
  return makeAddress(host, Number(port))!;
}
