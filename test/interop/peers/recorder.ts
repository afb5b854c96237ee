import { once } from "node:events";
import type { AddressInfo, Server, Socket } from "node:net";
import { connect, createServer } from "node:net";

/** What a client sent on one connection, request by request, as whoever is on the way can record it. */
export type Recording = readonly Buffer[];

/** Passes connections on to a server, and records what clients send. */
export class Recorder {
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

/** Sends `pieces` one after the other, each after the answer to the one before. @returns the status of each answer */
export async function replay(port: number, pieces: Recording): Promise<string[]> {
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
