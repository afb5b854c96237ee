import { once } from "node:events";
import type { Server, Socket } from "node:net";
import { createServer } from "node:net";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { OnPackets } from "../../../src/core/tun2socks/packet-stream-reader.ts";
import type { CustomDevice } from "../../../src/host/devices/device.ts";
import type { Tun2SocksHandle } from "../../../src/node/handles.ts";
import { loadNativeModule } from "../../../src/node/load-native-module.ts";
import { startTun2Socks } from "../../../src/node/tun2socks.ts";
import { type Inspected, inspect, tcpPacket } from "../../unit/packet-oracle.ts";

const FIN = 1;
const SYN = 2;
const RST = 4;
const ACK = 16;

const FAMILIES = [
  { family: "IPv4", source: "10.0.0.9", destination: "192.0.2.7" },
  { family: "IPv6", source: "fd00::9", destination: "2001:db8::7" },
] as const;

/** An embedder's device, which passes packets through callbacks. */
class CallbackDevice implements CustomDevice {
  readonly written: Inspected[] = [];
  #onPackets: OnPackets = () => {};

  start(onPackets: OnPackets): void {
    this.#onPackets = onPackets;
  }

  write(packets: Parameters<CustomDevice["write"]>[0]): void {
    for (let i = 0; i < packets.count; i++) {
      const start = packets.offset[i];
      const bytes = packets.buffer(i).subarray(start, start + packets.length[i]);
      this.written.push(inspect(Buffer.from(bytes), "whole"));
    }
  }

  send(packet: Uint8Array): void {
    this.#onPackets(Uint8Array.from(packet), Int32Array.of(0), Int32Array.of(packet.length), 1);
  }
}

const flagsOf = ({ message }: Inspected) => message[13];

describe.each(FAMILIES)("TCP of an embedder's device, over $family", ({ source, destination }) => {
  let server: Server;
  let sockets: Socket[];
  let asked: Buffer[];
  let device: CallbackDevice;
  let tun2socks: Tun2SocksHandle | undefined;

  const segment = (flags: number, sequence: number, acknowledgment: number, payload?: Buffer) => {
    const ports = { sourcePort: 5000, destinationPort: 443 };
    device.send(tcpPacket({ source, destination, ...ports, sequence, acknowledgment, flags, payload }));
  };
  const next = (flags: number, mask = flags) =>
    vi.waitFor(() => {
      const index = device.written.findIndex((packet) => (flagsOf(packet) & mask) === flags);
      expect(index).not.toBe(-1);
      return device.written.splice(0, index + 1).at(-1)!;
    });

  /** A SOCKS5 server that is its own target and echoes. */
  beforeEach(async () => {
    device = new CallbackDevice();
    sockets = [];
    asked = [];
    server = createServer({ allowHalfOpen: true }, (socket) => {
      sockets.push(socket);
      socket.on("error", () => {});
      socket.once("data", () => {
        socket.write(Buffer.of(5, 0));
        socket.once("data", (request) => {
          asked.push(request);
          socket.write(Buffer.of(5, 0, 0, 1, 0, 0, 0, 0, 0, 0));
          socket.pipe(socket);
        });
      });
    });
    await once(server.listen(0, "127.0.0.1"), "listening");
  });

  afterEach(async () => {
    await tun2socks?.close();
    for (const socket of sockets) socket.destroy();
    await new Promise((done) => server.close(done));
  });

  const start = async (io: "native" | "plain") => {
    const { port } = server.address() as { port: number };
    const tcpVia = `socks5://127.0.0.1:${port}`;
    tun2socks = await startTun2Socks({ device, tcpVia, udpVia: "reject", io });
  };

  it.skipIf(loadNativeModule() instanceof Error && process.env.CI === undefined)(
    "is terminated by lwIP: a connection to any address reaches the SOCKS5 server, both ways, until its end",
    async () => {
      await start("native");
      segment(SYN, 100, 0);
      const answer = (await next(SYN | ACK)).message;
      expect(answer.readUInt32BE(8)).toBe(101);
      const sequence = answer.readUInt32BE(4) + 1;
      segment(ACK, 101, sequence, Buffer.from("hello"));
      // The echo may send a bare acknowledgement.
      const echo = await vi.waitFor(() => {
        const found = device.written.find(({ message }) => message.length > 20);
        expect(found).toBeDefined();
        return found!.message;
      });
      expect(echo.subarray(20).toString()).toBe("hello");
      expect(asked[0].subarray(-2)).toEqual(Buffer.of(443 >> 8, 443 & 255));
      segment(FIN | ACK, 106, sequence + 5);
      expect((await next(FIN)).message.readUInt32BE(8)).toBe(107);
      segment(ACK, 107, sequence + 6);
      await vi.waitFor(() => expect(tun2socks!.stats().flows).toBe(0));
    },
  );

  it("gets a RST from plain I/O, which has no TCP stack", async () => {
    await start("plain");
    segment(SYN, 100, 0);
    await next(RST);
    expect(tun2socks!.stats().drops.no_listener).toBe(1);
  });
});

it.skipIf(loadNativeModule() instanceof Error && process.env.CI === undefined)(
  "fails with --tcp-stack kernel, because no kernel is behind the device",
  async () => {
    const options = { device: new CallbackDevice(), tcpVia: "direct", udpVia: "reject" } as const;
    await expect(startTun2Socks({ ...options, tcpStack: "kernel" })).rejects.toThrow(
      /it has no kernel behind it/,
    );
    await expect(startTun2Socks({ ...options, tcpStack: "lwip", io: "plain" })).rejects.toThrow(
      /--tcp-stack lwip: it needs native I\/O/,
    );
  },
);
