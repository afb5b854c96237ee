import type { Server } from "node:http";
import { createServer } from "node:http";
import type { Socket } from "node:net";
import { parseDecoy } from "./decoy.ts";
import { loadFolderDecoy } from "./decoy-folder.ts";
import { serverDecoy } from "./decoy-server.ts";

/** How long a stranger may be silent. */
const SILENCE_MS = 15_000;
/** Longest duration of a stranger's connection, whatever it sends. */
const LIFE_MS = 300_000;

/** Answers strangers' requests, one on each connection, like a web server. It does not listen. */
export class StrangerServer {
  readonly #server: Server;
  readonly #maxStrangers: number;
  /** Oldest first. */
  readonly #sockets = new Set<Socket>();

  private constructor(server: Server, maxStrangers: number) {
    this.#server = server;
    this.#maxStrangers = maxStrangers;
  }

  /**
   * @param decoy        see {@link parseDecoy}
   * @param maxStrangers  beyond it, the oldest connection is closed
   */
  static async open(decoy: string, maxStrangers: number): Promise<StrangerServer> {
    const what = parseDecoy(decoy)!;
    const answer = what.kind === "folder" ? await loadFolderDecoy(what.path) : serverDecoy(what.url);
    const server = createServer((request, response) => {
      // A proxy must not send the request for a tunnel or a WebSocket on this connection after this one.
      response.setHeader("Connection", "close");
      answer(request, response);
    });
    server.timeout = SILENCE_MS;
    // One read may bring thousands of pipelined requests, each of which would open a file or a connection.
    server.maxRequestsPerSocket = 1;
    server.on("connect", (_, socket) =>
      socket.end("HTTP/1.1 405 Method Not Allowed\r\nConnection: close\r\n\r\n"),
    );
    return new StrangerServer(server, maxStrangers);
  }

  get count(): number {
    return this.#sockets.size;
  }

  /** Takes over a connection. @param read  bytes that were read from it */
  take(socket: Socket, ...read: readonly Uint8Array[]): void {
    if (this.#sockets.size >= this.#maxStrangers) {
      // The oldest stranger is the most likely to be slow on purpose.
      const [oldest] = this.#sockets;
      oldest.destroy();
      this.#sockets.delete(oldest);
    }
    this.#sockets.add(socket);
    const timer = setTimeout(() => socket.destroy(), LIFE_MS).unref();
    socket.on("error", () => {});
    socket.once("close", () => {
      clearTimeout(timer);
      this.#sockets.delete(socket);
    });
    socket.unshift(Buffer.concat(read));
    this.#server.emit("connection", socket);
    socket.resume();
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy();
  }
}
