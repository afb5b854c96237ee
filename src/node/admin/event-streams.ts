import type { ServerResponse } from "node:http";

/** Limit of bytes that wait for a client that does not read. */
const MAX_WAITING_BYTES = 262_144;

/** Clients of server-sent events; each gets the events after it connects. */
export class EventStreams {
  readonly #clients = new Set<ServerResponse>();
  readonly #limit: number;

  constructor(limit: number) {
    this.#limit = limit;
  }

  get size(): number {
    return this.#clients.size;
  }

  /** @returns false at the limit, and leaves the response untouched */
  add(response: ServerResponse): boolean {
    if (this.#clients.size >= this.#limit) return false;
    this.#clients.add(response);
    response.on("close", () => this.#clients.delete(response));
    response.writeHead(200, { "content-type": "text/event-stream; charset=utf-8" });
    response.flushHeaders();
    return true;
  }

  send(event: string, data: unknown): void {
    if (this.#clients.size === 0) return;
    const text = `event: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
    for (const client of this.#clients) {
      if (client.writableLength > MAX_WAITING_BYTES) client.destroy();
      else client.write(text);
    }
  }
}
