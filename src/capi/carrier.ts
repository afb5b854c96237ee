import { HostError } from "../core/errors.ts";
import type { Carrier, Connection } from "../host/carriers/carrier.ts";
import type { Loop } from "../host/loop.ts";
import { ListenedStream } from "../host/stream/byte-stream.ts";
import type { CHost, EmbedderStream } from "./c-host.ts";

const CONNECT_MS = 10_000;
const READ_BYTES = 65_536;
/** A busy stream yields to the others after this many reads. */
const READ_ROUNDS = 4;

/** A carrier over the embedder's functions: each connection is one of the embedder's streams. */
export function embedderCarrier(host: CHost, loop: Loop): Carrier {
  const buffer = new Uint8Array(READ_BYTES);
  return {
    description: "the caller's stream",
    authority: "localhost",
    isLocal: false,
    connect: (cancellation) =>
      new Promise<Connection>((done, failed) => {
        const fail = (reason: string) => {
          end();
          stream?.destroy();
          failed(new HostError("ERR_CONNECT", `the caller's stream: ${reason}`));
        };
        const timer = loop.after(CONNECT_MS, () => fail(`not connected within ${CONNECT_MS / 1000} s`));
        const leave = cancellation.onCancel(() => fail("the attempt was cancelled"));
        const end = () => {
          timer.cancel();
          leave();
        };
        let stream: CarrierStream | undefined;
        try {
          stream = new CarrierStream(host, loop, buffer, (reason) => {
            if (reason !== undefined) {
              fail(reason);
              return;
            }
            end();
            done({ stream: stream! });
          });
        } catch (error) {
          fail((error as Error).message);
        }
      }),
    close: async () => {},
  };
}

/** A stream of the embedder. It has no half-closed state. */
class CarrierStream extends ListenedStream {
  readonly localIp = undefined;
  readonly remoteIp = undefined;
  readonly remotePort = undefined;
  readonly reusesMemory = true;
  readonly #host: CHost;
  readonly #loop: Loop;
  readonly #buffer: Uint8Array;
  readonly #stream: EmbedderStream;
  /**
   * Called once the stream is connected, or closed before that.
   *
   * @param reason  why it was closed
   */
  #onConnected: ((reason?: string) => void) | undefined;
  /** Bytes on loan until the embedder accepts them. */
  #unwritten: Uint8Array | undefined;
  #isClosed = false;
  #isScheduled = false;

  constructor(host: CHost, loop: Loop, buffer: Uint8Array, onConnected: (reason?: string) => void) {
    super();
    this.#host = host;
    this.#loop = loop;
    this.#buffer = buffer;
    this.#onConnected = onConnected;
    this.#stream = host.carrierOpen((isWritable) => this.#handle(isWritable));
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  write(bytes: Uint8Array, _hasMore = false, isBorrowed = false): boolean {
    if (this.#isClosed) return true;
    const taken = this.#host.carrierWrite(this.#stream, bytes);
    if (taken === bytes.length) return true;
    const rest = bytes.subarray(taken);
    this.#unwritten = isBorrowed ? rest.slice() : rest;
    return false;
  }

  end(): void {
    this.destroy();
  }

  destroy(): void {
    this.#close(undefined);
  }

  reset(): void {
    this.destroy();
  }

  tune(): void {}

  protected override setReading(isReading: boolean): void {
    if (isReading) this.#readSoon();
  }

  #handle(isWritable: boolean): void {
    if (this.#isClosed) return;
    const onConnected = this.#onConnected;
    if (onConnected !== undefined) {
      if (!isWritable && !this.#hasEnded()) return;
      this.#onConnected = undefined;
      if (isWritable) onConnected();
      else onConnected(this.#host.carrierReason(this.#stream) ?? "closed before it was connected");
      return;
    }
    if (isWritable) this.#handleWritable();
    if (this.isReading) this.#read();
  }

  #hasEnded(): boolean {
    return this.#host.carrierRead(this.#stream, this.#buffer.subarray(0, 0)) < 0;
  }

  #handleWritable(): void {
    const bytes = this.#unwritten;
    this.#unwritten = undefined;
    if (bytes !== undefined && this.write(bytes)) this.handleWritten();
  }

  #readSoon(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    this.#loop.nextTurn(() => {
      this.#isScheduled = false;
      if (this.isReading && !this.#isClosed) this.#read();
    });
  }

  #read(): void {
    for (let round = 0; round < READ_ROUNDS; round++) {
      const count = this.#host.carrierRead(this.#stream, this.#buffer);
      if (count < 0) this.#handleEnded();
      if (count <= 0) return;
      this.handleBytes(this.#buffer, count);
      if (!this.isReading || this.#isClosed) return;
    }
    this.#readSoon();
  }

  #handleEnded(): void {
    if (this.hasPeerEnded) return;
    const reason = this.#host.carrierReason(this.#stream);
    if (reason === undefined) this.handleEnd();
    else this.#close(new Error(reason));
  }

  #close(error: Error | undefined): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#unwritten = undefined;
    this.#host.carrierClose(this.#stream);
    void Promise.resolve().then(() => this.handleClose(error));
  }
}
