import { once } from "node:events";
import type { AddressInfo, Server, Socket } from "node:net";
import { connect, createServer } from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { UdpLocal, UdpServer } from "../../src/node/handles.ts";
import { startUdpLocal } from "../../src/node/udp-local.ts";
import { startUdpServer } from "../../src/node/udp-server.ts";

const KEY = Buffer.alloc(32, "k");

/** What a client sent on one connection, request by request, as whoever is on the way can record it. */
type Recording = readonly Buffer[];

/** Passes connections on to a server, and records what clients send. */
class Recorder {
  readonly connections: Buffer[][] = [];
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  constructor(port: () => number) {
    this.#server = createServer((client) => {
      const upstream = connect(port(), "127.0.0.1");
      const sent: Buffer[] = [];
      this.connections.push(sent);
      client.on("data", (bytes) => {
        sent.push(bytes);
        upstream.write(bytes);
      });
      upstream.on("data", (bytes) => client.write(bytes));
      for (const [socket, other] of [
        [client, upstream],
        [upstream, client],
      ]) {
        this.#sockets.add(socket);
        socket.on("close", () => other.destroy());
        socket.on("error", () => {});
      }
    });
  }

  async listen(): Promise<string> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Every connection so far, cut into its HTTP requests and what follows them. */
  get recordings(): Recording[] {
    return this.connections.map((pieces) => {
      const text = Buffer.concat(pieces).toString("latin1");
      return text.split(/(?<=\r\n\r\n)(?=GET )/).map((part) => Buffer.from(part, "latin1"));
    });
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
  }
}

const portOf = (server: UdpServer) => Number(server.address.listen[0].split(":")[1]);

/** Sends `pieces` one after the other, each after the answer to the one before. @returns the status of each answer */
async function replay(port: number, pieces: Recording): Promise<string[]> {
  const socket = connect(port, "127.0.0.1");
  socket.on("error", () => {});
  const statuses: string[] = [];
  for (const piece of pieces) {
    if (socket.destroyed || socket.readableEnded) break;
    socket.write(piece);
    const [answer] = await Promise.race([once(socket, "data"), once(socket, "close").then(() => [""])]);
    statuses.push(/^HTTP\/1.1 (\d+)/.exec(String(answer))?.[1] ?? "nothing");
  }
  socket.destroy();
  return statuses;
}

describe("a handshake that was recorded on the way to one server", () => {
  let servers: UdpServer[];
  let recorder: Recorder;
  let local: UdpLocal;
  const start = (port = 0, workers = 1) =>
    startUdpServer({ listen: [`127.0.0.1:${port}`], psk: KEY, workers });

  beforeEach(async () => {
    servers = [await start()];
    recorder = new Recorder(() => portOf(servers[0]));
    local = await startUdpLocal({
      ...{ server: await recorder.listen(), psk: KEY, lanes: 2 },
      forwards: [{ listen: "127.0.0.1:0", target: "127.0.0.1:9" }],
    });
    await once(local, "session-up");
    await expect.poll(() => servers[0].stats().lanes).toBe(2);
  });

  afterEach(async () => {
    await local.close();
    recorder.close();
    await Promise.all(servers.map((server) => server.close()));
  });

  /** Replays whole connections, and each request by itself, and expects that none opens or joins anything. */
  async function expectNothing(server: UdpServer, recordings: Recording[]): Promise<void> {
    const sessions: string[] = [];
    for (const name of ["session-up", "session-resumed"] as const) {
      server.on(name, () => sessions.push(name));
    }
    const lanes = server.stats().lanes;
    const single = recordings.flatMap((pieces) => pieces.map((piece) => [piece]));
    const spliced = recordings.flatMap((a) => recordings.map((b) => [...a, ...b]));
    for (const pieces of [...recordings, ...single, ...spliced]) {
      for (const status of await replay(portOf(server), pieces)) {
        expect(["400", "401", "404", "nothing"]).toContain(status);
      }
    }
    expect(sessions).toEqual([]);
    expect(server.stats().lanes).toBe(lanes);
  }

  it("opens nothing there while the session lives", async () => {
    const { recordings } = recorder;
    expect(recordings.flat().filter((piece) => piece.includes("c=:")).length).toBeGreaterThanOrEqual(2);
    await expectNothing(servers[0], recordings);
  });

  it("opens nothing at another server with the same key, with one thread or several", async () => {
    for (const workers of [1, 2]) {
      const other = await start(0, workers);
      servers.push(other);
      await expectNothing(other, recorder.recordings);
    }
  });

  it("opens nothing at the server that was started anew on the same port", async () => {
    const { recordings } = recorder;
    const port = portOf(servers[0]);
    await local.close();
    await servers[0].close();
    servers = [await start(port)];
    await expectNothing(servers[0], recordings);
  });

  it("opens nothing at another server with a ticket of that server in it", async () => {
    const other = await start();
    servers.push(other);
    const [request] = recorder.recordings[0];
    const socket = connect(portOf(other), "127.0.0.1");
    socket.write(request);
    const [answer] = await once(socket, "data");
    socket.destroy();
    const ticket = /c=(:[^:]*:)/.exec(String(answer))![1];
    const shown = recorder.recordings.flat().filter((piece) => piece.includes("c=:"));
    const spliced = shown.map((piece) =>
      Buffer.from(piece.toString("latin1").replace(/c=:[^:]*:/, `c=${ticket}`), "latin1"),
    );
    await expectNothing(
      other,
      spliced.map((piece) => [piece]),
    );
  });
});
