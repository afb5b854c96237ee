import { once } from "node:events";
import type { Socket } from "node:net";
import { connect } from "node:net";

const bytesOf = (hex: string) => Buffer.from(hex.replaceAll(" ", ""), "hex");

/** An RFC 9298 client that shares no code with Underpass: bytes by hand from the RFC and the bind draft. */
export class PlainClient {
  readonly socket: Socket;
  received = Buffer.alloc(0);

  constructor(port: number, host = "127.0.0.1") {
    this.socket = connect({ port, host, allowHalfOpen: true });
    this.socket.on("error", () => {});
    this.socket.on("data", (data) => {
      this.received = Buffer.concat([this.received, data]);
    });
  }

  /** Sends a request directly followed by `hex`. @returns the head of the answer */
  async request(path: string, fields: readonly string[] = [], hex = ""): Promise<string> {
    const lines = [
      `GET ${path} HTTP/1.1`,
      "Host: proxy.example",
      "Connection: Upgrade",
      "Upgrade: connect-udp",
      "Capsule-Protocol: ?1",
      ...fields,
    ];
    this.socket.write(Buffer.concat([Buffer.from(`${lines.join("\r\n")}\r\n\r\n`, "latin1"), bytesOf(hex)]));
    await this.until(() => this.received.includes("\r\n\r\n"));
    const end = this.received.indexOf("\r\n\r\n") + 4;
    const head = this.received.subarray(0, end).toString("latin1");
    this.received = this.received.subarray(end);
    return head;
  }

  send(hex: string): void {
    this.socket.write(bytesOf(hex));
  }

  /** The next `count` bytes in hex. */
  async take(count: number): Promise<string> {
    await this.until(() => this.received.length >= count);
    const bytes = this.received.subarray(0, count);
    this.received = this.received.subarray(count);
    return bytes.toString("hex");
  }

  /** Waits until the server has ended the connection. */
  async ended(): Promise<void> {
    await this.until(() => this.socket.readableEnded || this.socket.destroyed);
  }

  async until(isDone: () => boolean): Promise<void> {
    while (!isDone()) {
      if (this.socket.readableEnded || this.socket.destroyed) {
        throw new Error(`ended after ${this.received.toString("latin1")}`);
      }
      const heard = new AbortController();
      const { signal } = heard;
      const event = (name: string) => once(this.socket, name, { signal }).catch(() => {});
      await Promise.race([event("data"), event("end"), event("close")]);
      heard.abort();
    }
  }
}
