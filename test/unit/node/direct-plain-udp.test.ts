import { Socket } from "node:dgram";
import { afterEach, expect, it, vi } from "vitest";
import { silentLogger } from "../../../src/host/index.ts";
import { DirectPath } from "../../../src/host/udp-paths/direct.ts";
import { OutgoingDatagram } from "../../../src/host/udp-paths/udp-path.ts";
import { plainUdpIo } from "../../../src/node/io/udp-io-plain.ts";
import { makeAddress } from "../../../src/wire/socket-address.ts";
import { MemoryWorld } from "../memory/memory-system.ts";

afterEach(() => vi.restoreAllMocks());

it("a path through sockets of node:dgram warns of each failure that follows a success, and not of others", async () => {
  let now = 1_000;
  const { system } = new MemoryWorld();
  const warnings: object[] = [];
  const host = { deliver: () => {}, refuse: () => {}, drop: () => {} };
  const log = { ...silentLogger, warn: (fields: object) => void warnings.push(fields) };
  const ofPlain = { ...system, now: () => now, io: { ...system.io, udp: plainUdpIo } };
  const path = new DirectPath(ofPlain, host, log, 1);
  const send = async (association: number) => {
    now += 1_000;
    const target = makeAddress("127.0.0.1", 9)!;
    const datagram = new OutgoingDatagram();
    datagram.setPayload(association, Uint8Array.of(1), 0, 1, 0);
    datagram.setTarget(target, 0, target.length);
    path.send(datagram);
    path.flush();
    await new Promise(setImmediate);
  };
  const failing = () =>
    vi.spyOn(Socket.prototype, "bind").mockImplementation(function (this: Socket) {
      this.emit("error", Object.assign(new Error("bind EACCES"), { code: "EACCES" }));
      return this;
    });
  for (let round = 1; round <= 3; round++) {
    const bind = failing();
    await send(10 * round);
    await send(10 * round + 1);
    expect(warnings).toHaveLength(round);
    bind.mockRestore();
    await send(10 * round + 2);
  }
  await path.end();
});
