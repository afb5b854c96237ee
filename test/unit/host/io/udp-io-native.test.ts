import { createSocket } from "node:dgram";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import { Worker } from "node:worker_threads";
import { afterEach, describe, expect, it } from "vitest";
import type { ReceivedDatagrams } from "../../../../src/core/session/received-datagrams.ts";
import { NATIVE_DROP_REASONS } from "../../../../src/host/io/native-module.ts";
import type { OnUnreachable, UdpSocket } from "../../../../src/host/io/udp-io.ts";
import { Remote } from "../../../../src/host/io/udp-io.ts";
import { nativeUdpIo } from "../../../../src/node/io/native-udp-io.ts";
import { loadNativeModule } from "../../../../src/node/load-native-module.ts";
import type { LatencyClass } from "../../../../src/wire/latency-class.ts";
import { LATENCY_CLASSES } from "../../../../src/wire/latency-class.ts";
import type { AddressBytes } from "../../../../src/wire/socket-address.ts";
import { copyAddress, formatAddress, makeAddress } from "../../../../src/wire/socket-address.ts";

const native = loadNativeModule();
const isThere = !(native instanceof Error);
if (!isThere && process.env.CI !== undefined) throw native;

interface Told {
  readonly remote: string;
  readonly kind: string;
  readonly mtu: number;
}

interface Heard {
  readonly payload: Uint8Array;
  readonly source: string;
}

describe.skipIf(!isThere)("native UDP", () => {
  const open: UdpSocket[] = [];
  afterEach(() => {
    for (const socket of open.splice(0)) socket.close();
  });

  /** A socket that records received datagrams and, with `told`, reports of unreachable targets. */
  function listen(
    family: 4 | 6,
    told?: Told[],
  ): {
    socket: UdpSocket;
    heard: Heard[];
    until: (count: number) => Promise<void>;
  } {
    const heard: Heard[] = [];
    const onUnreachable: OnUnreachable = (remote, kind, mtu) => {
      told!.push({ remote: formatAddress(remote), kind, mtu });
      wake();
    };
    let wake = () => {};
    const socket = io().open({
      family,
      host: family === 4 ? "127.0.0.1" : "::1",
      port: 0,
      reusePort: false,
      onDatagrams: (received: ReceivedDatagrams, first, end) => {
        for (let row = first; row < end; row++) {
          const at = received.offset(row);
          const from = received.addressOffset(row);
          heard.push({
            payload: received.data.slice(at, at + received.length(row)),
            source: formatAddress(received.addresses.slice(from, from + received.addressLength(row))),
          });
        }
        wake();
      },
      ...(told === undefined ? {} : { onUnreachable }),
      onBindError: (error) => {
        throw error;
      },
    });
    open.push(socket);
    const until = async (count: number) => {
      while (heard.length + (told?.length ?? 0) < count) {
        await new Promise<void>((done) => {
          wake = done;
        });
      }
    };
    return { socket, heard, until };
  }

  const counts = () => {
    const array = new Float64Array(NATIVE_DROP_REASONS.length);
    (native as Exclude<typeof native, Error>).udpCounts(array);
    return Object.fromEntries(NATIVE_DROP_REASONS.map((reason, i) => [reason, array[i]]));
  };
  const io = () => nativeUdpIo(native as Exclude<typeof native, Error>);
  const remoteOf = (socket: UdpSocket, family: 4 | 6) =>
    new Remote(makeAddress(family === 4 ? "127.0.0.1" : "::1", socket.port)!);

  /** Numbered payloads of the given sizes, one after the other. */
  function payloads(sizes: readonly number[]): { data: Uint8Array; offsets: number[] } {
    const data = new Uint8Array(sizes.reduce((sum, size) => sum + size, 0));
    const offsets: number[] = [];
    let at = 0;
    for (const [i, size] of sizes.entries()) {
      data.fill(i + 1, at, at + size);
      offsets.push(at);
      at += size;
    }
    return { data, offsets };
  }

  /** The number of datagrams that are delivered in the second turn after they were sent to a socket that was just read. */
  async function promptOf(latency: LatencyClass, tries: number): Promise<number> {
    const a = listen(4);
    const b = listen(4);
    b.socket.setLatency(latency);
    const remote = remoteOf(b.socket, 4);
    const data = new Uint8Array(100);
    const send = () => {
      a.socket.send(undefined, data, 0, data.length, remote);
      io().flush();
    };
    let prompt = 0;
    for (let sent = 0; sent < 2 * tries; ) {
      send();
      await b.until(++sent);
      send();
      sent++;
      for (let turn = 0; turn < 2; turn++) await new Promise((done) => setImmediate(done));
      if (b.heard.length === sent) prompt++;
      await b.until(sent);
    }
    return prompt;
  }

  it.runIf(process.platform === "linux")(
    "does not read a bulk socket again in the turn after a read, and delivers what gathered later",
    async () => {
      // On a busy machine a turn may take longer than a socket is held.
      expect(await promptOf("bulk", 50)).toBeLessThan(await promptOf("balanced", 50));
    },
  );

  it("delivers everything, in order, while the class of a socket changes", async () => {
    const a = listen(4);
    const b = listen(4);
    const remote = remoteOf(b.socket, 4);
    const data = Uint8Array.from({ length: 250 }, (_, i) => i);
    for (let i = 0; i < data.length; i++) {
      b.socket.setLatency(LATENCY_CLASSES[i % 3]);
      a.socket.send(undefined, data, i, 1, remote);
      io().flush();
      if (i % 7 === 0) await b.until(i);
    }
    await b.until(data.length);
    expect(b.heard.map(({ payload }) => payload[0])).toEqual([...data]);
  });

  it("closes a socket that is held", async () => {
    const a = listen(4);
    const b = listen(4);
    b.socket.setLatency("bulk");
    const remote = remoteOf(b.socket, 4);
    a.socket.send(undefined, new Uint8Array(1), 0, 1, remote);
    io().flush();
    await b.until(1);
    a.socket.send(undefined, new Uint8Array(1), 0, 1, remote);
    io().flush();
    b.socket.close();
    const c = listen(4);
    c.socket.setLatency("bulk");
    const other = remoteOf(c.socket, 4);
    for (let i = 0; i < 20; i++) {
      a.socket.send(undefined, new Uint8Array(1), 0, 1, other);
      io().flush();
      await c.until(i + 1);
    }
    expect(b.heard.length).toBe(1);
  });

  it.each([4, 6] as const)("carries datagrams of all sizes whole and in order over IPv%i", async (family) => {
    const a = listen(family);
    const b = listen(family);
    const sizes = [0, 1, 1200, 1200, 1200, 700, 1200, 1200, 9000, 65_507, 65_507, 1472, 0, 0, 5];
    const { data, offsets } = payloads(sizes);
    const remote = remoteOf(b.socket, family);
    for (const [i, size] of sizes.entries()) {
      expect(a.socket.send(undefined, data, offsets[i], size, remote)).toBe(true);
    }
    expect(io().flush()).toBe(0);
    await b.until(sizes.length);
    expect(b.heard.map(({ payload }) => payload.length)).toEqual(sizes);
    for (const [i, { payload, source }] of b.heard.entries()) {
      expect(payload.every((byte) => byte === i + 1)).toBe(true);
      expect(source).toBe(family === 4 ? `127.0.0.1:${a.socket.port}` : `[::1]:${a.socket.port}`);
    }
  });

  it("sends each datagram after its header, in runs that leave as one send and in mixed ones", async () => {
    const a = listen(4);
    const b = listen(4);
    const remote = remoteOf(b.socket, 4);
    const { data, offsets } = payloads([100, 100, 100, 60, 100, 100]);
    const short = new Uint8Array([201, 202]);
    const long = new Uint8Array([203, 204, 205]);
    const headers = [short, short, long, short, undefined, undefined];
    const sizes = [100, 100, 100, 60, 100, 100];
    for (const [i, header] of headers.entries()) a.socket.send(header, data, offsets[i], sizes[i], remote);
    expect(io().flush()).toBe(0);
    await b.until(headers.length);
    for (const [i, { payload }] of b.heard.entries()) {
      const header = headers[i] ?? new Uint8Array(0);
      expect([...payload.subarray(0, header.length)]).toEqual([...header]);
      expect(payload.length).toBe(header.length + sizes[i]);
      expect(payload.subarray(header.length).every((byte) => byte === i + 1)).toBe(true);
    }
  });

  it("sends more rows than a batch holds, of many sockets, each to its own destination", async () => {
    const senders = Array.from({ length: 20 }, () => listen(4));
    const targets = Array.from({ length: 20 }, () => listen(4));
    const remotes = targets.map(({ socket }) => remoteOf(socket, 4));
    const data = new Uint8Array(64).fill(7);
    for (let round = 0; round < 250; round++) {
      for (const [i, { socket }] of senders.entries()) socket.send(undefined, data, 0, 20 + i, remotes[i]);
    }
    expect(io().flush()).toBe(0);
    for (const [i, target] of targets.entries()) {
      await target.until(250);
      expect(target.heard.every(({ payload }) => payload.length === 20 + i)).toBe(true);
      const source = `127.0.0.1:${senders[i].socket.port}`;
      expect(target.heard.every((heard) => heard.source === source)).toBe(true);
    }
  });

  it("counts datagrams that are too long for the path or cannot be routed, and continues", async () => {
    const a = listen(4);
    const b = listen(4);
    const before = counts();
    const data = new Uint8Array(70_000);
    a.socket.send(undefined, data, 0, 65_520, remoteOf(b.socket, 4));
    a.socket.send(undefined, data, 0, 66_000, remoteOf(b.socket, 4));
    a.socket.send(undefined, data, 0, 10, new Remote(makeAddress("::1", b.socket.port)!));
    a.socket.send(undefined, data, 0, 11, remoteOf(b.socket, 4));
    expect(io().flush()).toBe(3);
    await b.until(1);
    expect(b.heard[0].payload.length).toBe(11);
    const after = counts();
    expect(after.too_long - before.too_long).toBe(1);
    expect(after.failed - before.failed).toBe(2);
  });

  it("continues after a port has refused a datagram", async () => {
    const gone = listen(4);
    const remote = remoteOf(gone.socket, 4);
    gone.socket.close();
    const a = listen(4);
    const b = listen(4);
    for (let i = 0; i < 10; i++) {
      a.socket.send(undefined, new Uint8Array(100), 0, 100, remote);
      io().flush();
    }
    a.socket.send(undefined, new Uint8Array(3), 0, 3, remoteOf(b.socket, 4));
    io().flush();
    await b.until(1);
    expect(b.heard[0].payload.length).toBe(3);
  });

  /** A socket bound to any address that echoes datagrams to the address that `remoteFor` returns. */
  function echo(remoteFor: (source: AddressBytes, local: number) => Remote): UdpSocket {
    const socket = io().open({
      family: 4,
      host: "0.0.0.0",
      port: 0,
      reusePort: false,
      tellsLocal: true,
      onDatagrams: (received, first, end) => {
        for (let row = first; row < end; ) {
          const from = received.addressOffset(row);
          const source = copyAddress(received.addresses, from, received.addressLength(row));
          const remote = remoteFor(source, received.local(row));
          for (const runEnd = received.endOfRun(row, end); row < runEnd; row++) {
            socket.send(undefined, received.data, received.offset(row), received.length(row), remote);
          }
        }
        io().flush();
      },
      onBindError: (error) => {
        throw error;
      },
    });
    open.push(socket);
    return socket;
  }

  it("answers from the address that was asked, so that connected clients receive it", async () => {
    const { port } = echo((source, local) => new Remote(source, local));
    const clients = ["127.0.0.2", "127.0.0.3", "127.0.0.1", "127.0.0.3"].map(async (host) => {
      const client = createSocket("udp4");
      client.connect(port, host);
      await once(client, "connect");
      client.send(host);
      const [answer] = await once(client, "message");
      client.close();
      return `${answer}`;
    });
    expect(await Promise.all(clients)).toEqual(["127.0.0.2", "127.0.0.3", "127.0.0.1", "127.0.0.3"]);
  });

  it("keeps bursts to two of its addresses apart, even if they are coalesced or share an address of the batch", async () => {
    const locals = new Set<number>();
    const remotes = new Map<number, Remote>();
    const server = echo((source, local) => {
      locals.add(local);
      const known = remotes.get(local);
      const remote = known ?? new Remote(source, local);
      remotes.set(local, remote);
      const other = [...remotes.values()].find((each) => each !== remote && each.batch > remote.batch);
      // As if both were at one place of the batch, so that only their numbers distinguish them.
      if (other !== undefined) Object.assign(remote, { batch: other.batch, batchOffset: other.batchOffset });
      return remote;
    });
    const client = listen(4);
    const hosts = [2, 3].map((last) => new Remote(makeAddress(`127.0.0.${last}`, server.port)!));
    const payload = [2, 3].map((last) => new Uint8Array(1200).fill(last));
    for (let round = 0; round < 8; round++) {
      for (const [i, remote] of hosts.entries()) {
        // Runs that leave as one send alternate with single datagrams.
        for (let n = 0; n < 32 >> round; n++) client.socket.send(undefined, payload[i], 0, 1200, remote);
        if (round > 5) client.socket.send(undefined, payload[i], 0, 1200, remote);
      }
    }
    expect(io().flush()).toBe(0);
    await client.until(130);
    expect(locals).toEqual(new Set([1, 2]));
    for (const { payload, source } of client.heard)
      expect(source).toBe(`127.0.0.${payload[0]}:${server.port}`);
  });

  it("leaves the choice to routing beyond 255 addresses, and for numbers that it never assigned", async () => {
    const locals: number[] = [];
    const server = echo((source, local) => {
      locals.push(local);
      return new Remote(source, local === 1 ? 300 : local);
    });
    const client = listen(4);
    for (let i = 1; i <= 258; i++) {
      const remote = new Remote(makeAddress(`127.0.${i >> 8}.${i & 255}`, server.port)!);
      client.socket.send(undefined, new Uint8Array([i >> 8, i & 255]), 0, 2, remote);
      expect(io().flush()).toBe(0);
      await client.until(i);
    }
    expect(locals).toEqual([...Array.from({ length: 255 }, (_, i) => i + 1), 0, 0, 0]);
    const sources = client.heard.map(({ source }) => source.split(":")[0]);
    expect(sources.slice(0, 3)).toEqual(["127.0.0.1", "127.0.0.2", "127.0.0.3"]);
    expect(sources.slice(254)).toEqual(["127.0.0.255", "127.0.0.1", "127.0.0.1", "127.0.0.1"]);
  });

  describe.skipIf(process.platform !== "linux")("with errors told", () => {
    const FAMILIES = [4, 6] as const;

    /** A loopback port on which nothing listens. */
    function closedPort(family: 4 | 6): Remote {
      const { socket } = listen(family);
      const remote = remoteOf(socket, family);
      socket.close();
      return remote;
    }

    it.each(FAMILIES)("reports which port refused over IPv%i, and sends nothing twice", async (family) => {
      const told: Told[] = [];
      const a = listen(family, told);
      const [gone, other] = [closedPort(family), closedPort(family)];
      const before = counts();
      for (const remote of [gone, other]) {
        a.socket.send(undefined, new Uint8Array(9), 0, 9, remote);
        expect(io().flush()).toBe(0);
      }
      await a.until(2);
      expect(told).toEqual(
        [gone, other].map(({ address }) => ({ remote: formatAddress(address), kind: "port", mtu: 0 })),
      );
      expect(counts().refused - before.refused).toBe(2);
    });

    it.each(FAMILIES)(
      "loses nothing between 3,000 datagrams that are refused over IPv%i, in singles, runs and both ways",
      async (family) => {
        const told: Told[] = [];
        const a = listen(family, told);
        const b = listen(family);
        const gone = closedPort(family);
        const good = remoteOf(b.socket, family);
        const data = new Uint8Array(2000);
        const wanted: number[] = [];
        for (let round = 0; round < 100; round++) {
          const before = wanted.length;
          for (let i = 0; i < 30; i++) {
            a.socket.send(undefined, data, 0, 100 + (i % 3 === 0 ? i : 0), gone);
            // In even rounds all have one size, and leave as one send.
            const size = round % 2 === 0 ? 700 : 700 + i;
            if (i % 2 === 0) continue;
            a.socket.send(undefined, data, 0, size, good);
            wanted.push(size);
          }
          expect(io().flush()).toBe(0);
          b.socket.send(undefined, data, 0, 1 + round, remoteOf(a.socket, family));
          expect(io().flush()).toBe(0);
          await b.until(before + 15);
        }
        while (a.heard.length < 100) await new Promise((done) => setImmediate(done));
        expect(a.heard.map(({ payload }) => payload.length)).toEqual(
          Array.from({ length: 100 }, (_, i) => 1 + i),
        );
        expect(b.heard.map(({ payload }) => payload.length)).toEqual(wanted);
        expect(new Set(told.map(({ remote }) => remote))).toEqual(new Set([formatAddress(gone.address)]));
      },
    );

    it("reports what the system itself refuses to send, in the same turn or the next", async () => {
      const told: Told[] = [];
      const a = listen(4, told);
      // Sending to it requires SO_BROADCAST.
      const broadcast = new Remote(makeAddress("127.255.255.255", 9)!);
      a.socket.send(undefined, new Uint8Array(1), 0, 1, broadcast);
      expect(io().flush()).toBe(1);
      await new Promise((done) => setImmediate(done));
      expect(told).toEqual([{ remote: "127.255.255.255:9", kind: "prohibited", mtu: 0 }]);
    });

    it("reports nothing about a closed socket, nor to the socket that gets its number", async () => {
      const told: Told[] = [];
      const gone = closedPort(4);
      for (let i = 0; i < 200; i++) {
        const a = listen(4, told);
        a.socket.send(undefined, new Uint8Array(1), 0, 1, gone);
        io().flush();
        if (i % 2 === 0) await new Promise((done) => setImmediate(done));
        const before = told.length;
        a.socket.close();
        listen(4, told);
        await new Promise((done) => setImmediate(done));
        expect(told.length).toBe(before);
      }
    });

    it("is idle once errors are read", async (context) => {
      const timing = performance.nodeTiming as unknown as { uvMetricsInfo?: { loopCount: number } };
      if (timing.uvMetricsInfo === undefined) context.skip("this Node counts no turns of its loop");
      const told: Told[] = [];
      const a = listen(4, told);
      a.socket.send(undefined, new Uint8Array(1), 0, 1, closedPort(4));
      io().flush();
      await a.until(1);
      const before = timing.uvMetricsInfo!.loopCount;
      await new Promise((done) => setTimeout(done, 100));
      // A loop that repeatedly found the socket ready would have made thousands of turns.
      expect(timing.uvMetricsInfo!.loopCount - before).toBeLessThan(100);
    });
  });

  it("reports why it cannot bind, and shares a port when both sockets ask for that", async () => {
    const options = { family: 4, host: "127.0.0.1", onDatagrams: () => {} } as const;
    const errors: NodeJS.ErrnoException[] = [];
    const bind = (port: number, reusePort: boolean) => {
      const socket = io().open({ ...options, port, reusePort, onBindError: (error) => errors.push(error) });
      open.push(socket);
      return socket;
    };
    const first = bind(0, true);
    expect(bind(first.port, true).port).toBe(first.port);
    expect(errors).toEqual([]);
    expect(bind(first.port, false).port).toBe(0);
    // Reported once the caller has the socket.
    await new Promise((done) => setImmediate(done));
    expect(errors[0].code).toBe("EADDRINUSE");
  });

  it("leaks neither memory nor descriptors in 50,000 openings and closings", async () => {
    const descriptors = () => readdirSync("/proc/self/fd").length;
    const cycle = async (count: number) => {
      for (let i = 0; i < count; i += 500) {
        for (const { socket } of Array.from({ length: 500 }, () => listen(4))) socket.close();
        open.length = 0;
        await new Promise((done) => setImmediate(done));
      }
    };
    await cycle(10_000);
    const [before, files] = [process.memoryUsage().rss, descriptors()];
    await cycle(40_000);
    await new Promise((done) => setImmediate(done));
    expect(descriptors()).toBeLessThanOrEqual(files + 2);
    expect(process.memoryUsage().rss - before).toBeLessThan(30 * 1024 * 1024);
  });

  it("closes its sockets with the thread that opened them", async () => {
    const url = new URL("../../../../dist/node/io/native-udp-io.js", import.meta.url);
    const loader = new URL("../../../../dist/node/load-native-module.js", import.meta.url);
    const files = readdirSync("/proc/self/fd").length;
    for (let i = 0; i < 20; i++) {
      const worker = new Worker(
        `const { parentPort } = require("node:worker_threads");
         Promise.all([import(${JSON.stringify(url.href)}), import(${JSON.stringify(loader.href)})]).then(([io, native]) => {
           const udp = io.nativeUdpIo(native.loadNativeModule());
           for (let i = 0; i < 100; i++)
             udp.open({ family: 4, host: "127.0.0.1", port: 0, reusePort: false, onDatagrams() {}, onBindError(e) { throw e; } });
           parentPort.postMessage("open");
         });`,
        { eval: true },
      );
      await new Promise((done, failed) => worker.once("message", done).once("error", failed));
      await worker.terminate();
    }
    expect(readdirSync("/proc/self/fd").length).toBeLessThanOrEqual(files + 5);
  });
});
