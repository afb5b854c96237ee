import { afterEach, describe, expect, it, vi } from "vitest";
import type { UdpSocket } from "../../../../src/host/io/udp-io.ts";
import { Remote } from "../../../../src/host/io/udp-io.ts";
import { plainUdpIo } from "../../../../src/node/io/udp-io-plain.ts";
import { makeAddress } from "../../../../src/wire/socket-address.ts";

describe("plain UDP I/O", () => {
  let socket: UdpSocket | undefined;

  afterEach(() => socket?.close());

  async function open(): Promise<UdpSocket> {
    const opened = plainUdpIo.open({
      family: 4,
      host: "127.0.0.1",
      port: 0,
      reusePort: false,
      onDatagrams: () => {},
      onBindError: (error) => expect.unreachable(error.message),
    });
    socket = opened;
    await vi.waitUntil(() => opened.port > 0);
    return opened;
  }

  /** A datagram's source may have port 0, where no answer can be sent; node:dgram throws. */
  it("drops a datagram to port 0", async () => {
    const udp = await open();
    const data = Buffer.from("answer");
    const nowhere = new Remote(makeAddress("127.0.0.1", 0)!);
    expect(udp.send(undefined, data, 0, data.length, nowhere)).toBe(false);
    expect(udp.send(data, data, 0, data.length, nowhere)).toBe(false);
    expect(udp.sendAll(undefined, data, Int32Array.of(0, 0), Int32Array.of(1, 6), 0, 2, nowhere)).toBe(2);
  });
});
