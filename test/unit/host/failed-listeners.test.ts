import { describe, expect, it } from "vitest";
import type { HostError } from "../../../src/core/errors.ts";
import { KernelFlows } from "../../../src/host/devices/kernel-flows.ts";
import { openPacketListener } from "../../../src/host/devices/packet-listener.ts";
import { silentLogger, UdpLocalHost, UdpServerHost } from "../../../src/host/index.ts";
import type { NativeModule } from "../../../src/host/io/native-module.ts";
import { NativeTcp } from "../../../src/host/stream/tcp-native.ts";
import { LOCAL, SERVER } from "../memory/memory-exchange.ts";
import { MemoryWorld } from "../memory/memory-system.ts";

type Open = (world: MemoryWorld, onFailed: (error: Error) => void) => Promise<unknown>;

/** What listens, by its number of listeners. */
const OPENERS: readonly (readonly [string, number, Open])[] = [
  [
    "a server of tunnels and dialects",
    2,
    async (world, onFailed) => {
      const listen = ["127.0.0.1:3456", "hev://127.0.0.1:1081"];
      const server = new UdpServerHost({ ...SERVER, listen }, silentLogger, world.system);
      server.events.on("listener-failed", onFailed);
      await server.listen();
    },
  ],
  [
    "a client with SOCKS5",
    1,
    async (world, onFailed) => {
      const options = { ...LOCAL, listen: "127.0.0.1:1080", forwards: [] };
      const local = new UdpLocalHost(options, silentLogger, world.system);
      local.events.on("listener-failed", onFailed);
      await local.listen();
    },
  ],
  [
    "a device of packets",
    1,
    (world, onListenerFailed) => {
      const events = { onPackets: () => {}, onWritable: () => {}, onEnd: () => {}, onListenerFailed };
      return openPacketListener("/path", world.tcp, events, silentLogger);
    },
  ],
  [
    "TCP of a device through the kernel",
    2,
    async (world, onListenerFailed) => {
      const unused = (): never => {
        throw new Error("not used");
      };
      const flows = new KernelFlows({
        ...{ core: unused, loop: world.system, tcp: world.tcp, log: silentLogger },
        ...{ connect: unused, pacing: unused, drain: unused, onListenerFailed },
      });
      await flows.listen("192.0.2.1");
      await flows.listen("2001:db8::1");
    },
  ],
];

describe("a listener that accepts nothing more", () => {
  it.each(OPENERS)("is reported by %s, unlike a passing error", async (_, count, open) => {
    const world = new MemoryWorld();
    const failures: string[] = [];
    await open(world, ({ message }) => failures.push(message));
    world.reportListenerErrors(false);
    expect(failures).toEqual([]);
    world.reportListenerErrors(true);
    expect(failures).toEqual(Array(count).fill("a fault"));
  });

  it("is told apart from a connection that cannot be kept with native I/O", async () => {
    let accept: (result: number) => void = () => {};
    const native = {
      tcpListen: (...values: readonly unknown[]) => {
        accept = values[3] as typeof accept;
        return 5;
      },
      socketAddress: () => new Uint8Array(7),
      socketName: () => ["127.0.0.1", 1],
      tcpKeepAlive: () => {},
      descriptorClose: () => {},
      lazyMemory: () => new ArrayBuffer(1),
      streamOpen: () => {
        throw new Error("no memory");
      },
    } as unknown as NativeModule;
    const errors: [string, string | undefined, boolean][] = [];
    await new NativeTcp(native, new MemoryWorld().system).listen(
      { host: "127.0.0.1", port: 0 },
      {
        onStream: () => {},
        onError: (error, isFinal) => errors.push([error.message, (error as HostError).code, isFinal]),
      },
    );
    accept(9);
    accept(-22);
    expect(errors).toEqual([
      ["no memory", undefined, false],
      ["cannot listen: 127.0.0.1:1: -22", "ERR_LISTEN", true],
    ]);
  });
});
