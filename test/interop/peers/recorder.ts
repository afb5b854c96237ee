import { once } from "node:events";
import type { AddressInfo, Server, Socket } from "node:net";
import { connect, createServer } from "node:net";

/** The bytes that a client sent on one connection, by request, as an observer on the path records them. */
export type Recording = readonly Buffer[];

/** Relays connections to a server and records the clients' bytes. */
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

  /** All connections so far, each split into its HTTP requests with the bytes that follow each. */
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

/** Sends `pieces` in order, each after the answer to the previous one. @returns the status of each answer */
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
