import { once } from "node:events";
import type { AddressInfo, Socket } from "node:net";
import { createServer } from "node:net";
import type { ByteStream, ByteStreamEvents } from "../../../src/host/stream/byte-stream.ts";
import type { Tcp } from "../../../src/host/stream/tcp.ts";
import { NativeTcp } from "../../../src/host/stream/tcp-native.ts";
import { plainTcp } from "../../../src/node/io/tcp-plain.ts";
import { loadNativeModule } from "../../../src/node/load-native-module.ts";
import { nodeErrors } from "../../../src/node/system-text.ts";

export const native = loadNativeModule();

/** Connections over node:net and, if it was built, over the native module. */
export const TCPS: [string, Tcp][] = [["plain", plainTcp]];
if (!(native instanceof Error)) TCPS.push(["native", new NativeTcp(native, nodeErrors)]);
else if (process.env.CI !== undefined) throw native;

/** A stream on loopback, and the socket at its other end, which stays open for writing. */
export async function openPair(tcp: Tcp): Promise<{ stream: ByteStream; peer: Socket }> {
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const accepted = once(server, "connection") as Promise<[Socket]>;
  const stream = await connect(tcp, port);
  const [peer] = await accepted;
  peer.on("error", () => {});
  server.close();
  return { stream, peer };
}

export function connect(tcp: Tcp, port: number): Promise<ByteStream> {
  return new Promise((done, failed) =>
    tcp.connect({ host: "127.0.0.1", port }, undefined, (result) =>
      typeof result === "string" ? failed(new Error(result)) : done(result),
    ),
  );
}

/** Records events. */
export class Listener implements ByteStreamEvents {
  readonly pieces: Buffer[] = [];
  /** What happened, in order: `bytes`, `end`, `written`, `close`. */
  readonly events: string[] = [];
  error: Error | undefined;
  readonly #waiting: { readonly isDone: () => boolean; readonly done: () => void }[] = [];

  get text(): string {
    return Buffer.concat(this.pieces).toString();
  }

  onBytes(chunk: Uint8Array, length: number): void {
    this.pieces.push(Buffer.from(chunk.slice(0, length)));
    this.#add("bytes");
  }

  onEnd(): void {
    this.#add("end");
  }

  onWritten(): void {
    this.#add("written");
  }

  onClose(error: Error | undefined): void {
    this.error = error;
    this.#add("close");
  }

  has(name: "bytes" | "end" | "written" | "close"): Promise<void> {
    return this.until(() => this.events.includes(name));
  }

  until(isDone: () => boolean): Promise<void> {
    if (isDone()) return Promise.resolve();
    return new Promise((done) => this.#waiting.push({ isDone, done }));
  }

  #add(name: string): void {
    this.events.push(name);
    for (const { isDone, done } of this.#waiting) if (isDone()) done();
  }
}
