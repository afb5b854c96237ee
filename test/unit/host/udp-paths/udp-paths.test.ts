import { afterEach, describe, expect, it } from "vitest";
import type { UdpIo, UdpSocket } from "../../../../src/host/io/udp-io.ts";
import { DirectPath } from "../../../../src/host/udp-paths/direct.ts";
import { DnsOverTcpPath } from "../../../../src/host/udp-paths/dns-over-tcp.ts";
import { Socks5Path } from "../../../../src/host/udp-paths/socks5.ts";
import type { UdpPath, UdpPathHost } from "../../../../src/host/udp-paths/udp-path.ts";
import { OutgoingDatagram } from "../../../../src/host/udp-paths/udp-path.ts";
import { chooseIo } from "../../../../src/node/io/io.ts";
import { nativeUdpIo } from "../../../../src/node/io/native-udp-io.ts";
import { loadNativeModule } from "../../../../src/node/load-native-module.ts";
import { nodeSystem } from "../../../../src/node/system.ts";
import { formatAddress, makeAddress } from "../../../../src/wire/socket-address.ts";

const native = loadNativeModule();
const isThere = !(native instanceof Error) && native.udpTellErrors !== undefined;
if (!isThere && process.env.CI !== undefined && process.platform === "linux") throw native;

const SILENT = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

/** Records reports as `association remote kind mtu`. */
class Host implements UdpPathHost {
  readonly refused: string[] = [];
  readonly delivered: string[] = [];
  readonly drops: Record<string, number> = {};
  #wake = () => {};

  deliver(association: number, remote: Uint8Array): void {
    this.delivered.push(`${association} ${formatAddress(remote)}`);
    this.#wake();
  }

  refuse(association: number, remote: Uint8Array, kind: string, mtu: number): void {
    this.refused.push(`${association} ${formatAddress(remote)} ${kind} ${mtu}`);
    this.#wake();
  }

  drop(reason: string, count: number): void {
    if (count > 0) this.drops[reason] = (this.drops[reason] ?? 0) + count;
  }

  async until(isDone: () => boolean): Promise<void> {
    while (!isDone()) {
      await new Promise<void>((done) => {
        this.#wake = done;
      });
    }
  }
}

describe.skipIf(!isThere)("a way for UDP", () => {
  const paths: UdpPath[] = [];
  const sockets: UdpSocket[] = [];
  afterEach(async () => {
    for (const path of paths.splice(0)) await path.end();
    for (const socket of sockets.splice(0)) socket.close();
  });

  const io = (): UdpIo => nativeUdpIo(native as Exclude<typeof native, Error>);

  const system = () => nodeSystem(chooseIo("native", "balanced", SILENT));

  function bind(family: 4 | 6, onDatagrams: () => void = () => {}): UdpSocket {
    const socket = io().open({
      family,
      host: family === 4 ? "127.0.0.1" : "::1",
      port: 0,
      reusePort: false,
      onDatagrams,
      onBindError: (error) => {
        throw error;
      },
    });
    sockets.push(socket);
    return socket;
  }

  function closedPort(family: 4 | 6): number {
    const socket = bind(family);
    const { port } = socket;
    socket.close();
    return port;
  }

  function send(path: UdpPath, association: number, host: string, port: number, bytes = 10): string {
    const address = makeAddress(host, port)!;
    const datagram = new OutgoingDatagram();
    datagram.setPayload(association, new Uint8Array(bytes), 0, bytes, 0);
    datagram.setTarget(address, 0, address.length);
    path.send(datagram);
    path.flush();
    return formatAddress(address);
  }

  it.each([
    [4, "127.0.0.1"],
    [6, "::1"],
  ] as const)(
    "from sockets over IPv%i reports the association whose datagram a port refused",
    async (family, host) => {
      const told = new Host();
      const path = new DirectPath(system(), told, SILENT, 1);
      paths.push(path);
      const targets = [7, 8].map((association) => send(path, association, host, closedPort(family)));
      await told.until(() => told.refused.length === 2);
      expect(told.refused.sort()).toEqual(targets.map((target, i) => `${7 + i} ${target} port 0`));
      expect(told.drops).toEqual({});
    },
  );

  it("from sockets reports nothing for a closed association", async () => {
    const told = new Host();
    const path = new DirectPath(system(), told, SILENT, 1);
    paths.push(path);
    send(path, 1, "127.0.0.1", closedPort(4));
    path.close(1);
    const target = send(path, 2, "127.0.0.1", closedPort(4));
    await told.until(() => told.refused.length > 0);
    expect(told.refused).toEqual([`2 ${target} port 0`]);
  });

  it("of DNS over TCP counts and refuses a query whose server cannot be reached", async () => {
    const told = new Host();
    const path = new DnsOverTcpPath(system(), told, async () => {
      throw new Error("refused");
    });
    paths.push(path);
    path.open(1);
    const target = send(path, 1, "192.0.2.53", 53, 40);
    await told.until(() => told.refused.length > 0);
    expect(told.refused).toEqual([`1 ${target} port 0`]);
    expect(told.drops).toEqual({ send_error: 1 });
  });

  it("through a SOCKS5 relay that is gone refuses the last four targets of an association that still sends", async () => {
    const told = new Host();
    let heard = 0;
    let wake = () => {};
    const relay = bind(4, () => {
      heard++;
      wake();
    });
    const path = new Socks5Path(`socks5-udp://127.0.0.1:${relay.port}`, system(), told, SILENT, 1);
    paths.push(path);
    for (const port of [1, 2, 3, 4, 5, 3]) {
      const before = heard;
      send(path, 0, "192.0.2.1", port);
      while (heard === before) {
        await new Promise<void>((done) => {
          wake = done;
        });
      }
    }
    expect(told.refused).toEqual([]);
    relay.close();
    send(path, 0, "192.0.2.1", 6);
    await told.until(() => told.refused.length === 4);
    expect(told.refused).toEqual([6, 3, 5, 4].map((port) => `0 192.0.2.1:${port} port 0`));
  });

  it("through a SOCKS5 server that is down refuses and counts each datagram", async () => {
    const told = new Host();
    const path = new Socks5Path(`socks5://127.0.0.1:${closedPort(4)}`, system(), told, SILENT, 1);
    paths.push(path);
    const targets = [1, 2].map((port) => send(path, 3, "192.0.2.1", port));
    await told.until(() => told.refused.length === 2);
    expect(told.refused).toEqual(targets.map((target) => `3 ${target} port 0`));
    expect(told.drops).toEqual({ send_error: 2 });
  });
});
