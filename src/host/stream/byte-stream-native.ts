import { copyOf } from "../../core/copy-bytes.ts";
import type { NativeModule } from "../io/native-module.ts";
import type { SystemErrors } from "../system.ts";
import { ListenedStream } from "./byte-stream.ts";
import { tuneDescriptor } from "./tcp-tuning.ts";

/** A byte stream over a descriptor, by the native module. */
export class DescriptorStream extends ListenedStream {
  readonly reusesMemory = true;
  readonly native: NativeModule;
  readonly #errors: SystemErrors;
  readonly #descriptor: number;
  readonly #readBuffer: Uint8Array;
  /** Bytes on loan until the system accepts them. */
  #unwritten: Uint8Array | undefined;
  #state: "open" | "ended" | "closed" = "open";
  /** Why a write failed. */
  #failure: Error | undefined;

  /**
   * @param descriptor  of a connected socket, which the stream owns from now on
   * @param readBuffer  receives the bytes of each read; streams of a thread may share it
   */
  constructor(native: NativeModule, descriptor: number, readBuffer: Uint8Array, errors: SystemErrors) {
    super();
    this.native = native;
    this.#errors = errors;
    this.#descriptor = descriptor;
    this.#readBuffer = readBuffer;
    native.streamOpen!(descriptor, readBuffer, this.#onRead, this.#onWritable);
    native.streamPause!(descriptor, true);
  }

  get isClosed(): boolean {
    return this.#state !== "open";
  }

  get descriptor(): number | undefined {
    return this.#state === "closed" ? undefined : this.#descriptor;
  }

  get localIp(): string | undefined {
    return this.#name(false)?.[0];
  }

  get remoteIp(): string | undefined {
    return this.#name(true)?.[0];
  }

  get remotePort(): number | undefined {
    return this.#name(true)?.[1];
  }

  write(bytes: Uint8Array, hasMore = false, isBorrowed = false): boolean {
    if (this.#state === "closed") return true;
    const written = this.native.streamWrite!(this.#descriptor, bytes, bytes.length, hasMore);
    if (written === bytes.length) return true;
    if (written < 0) {
      this.#handleFailure(this.#error("write", written));
      return true;
    }
    const rest = bytes.subarray(written);
    this.#unwritten = isBorrowed ? copyOf(rest) : rest;
    return false;
  }

  end(): void {
    if (this.#state !== "open") return;
    if (this.hasPeerEnded) {
      // The system still sends the bytes that it has accepted.
      this.destroy();
      return;
    }
    this.#state = "ended";
    this.native.streamEnd!(this.#descriptor);
  }

  destroy(): void {
    if (this.#leave()) this.native.streamClose!(this.#descriptor);
  }

  reset(): void {
    if (this.#leave()) this.native.streamReset!(this.#descriptor);
  }

  tune(heartbeatMs: number): void {
    if (this.#state !== "closed") tuneDescriptor(this.#descriptor, this.native, heartbeatMs);
  }

  /** Gives the open connection away. @returns undefined when it is closed */
  release(): { readonly descriptor: number; readonly unread: Uint8Array | undefined } | undefined {
    const unread = this.takeUnread();
    if (!this.#leave()) return undefined;
    this.native.streamRelease!(this.#descriptor);
    return { descriptor: this.#descriptor, unread };
  }

  limitReads(readBytes: number, bufferBytes: number): void {
    if (this.#state !== "closed") this.native.streamLimit?.(this.#descriptor, readBytes, bufferBytes);
  }

  protected override setReading(isReading: boolean): void {
    if (this.#state !== "closed") this.native.streamPause!(this.#descriptor, !isReading);
  }

  #name(isPeer: boolean): [string, number] | undefined {
    return this.#state === "closed" ? undefined : this.native.socketName!(this.#descriptor, isPeer);
  }

  #hasLeft(): boolean {
    return this.#state === "closed";
  }

  #error(call: string, error: number): Error {
    const code = this.#errors.errorName(error);
    return Object.assign(new Error(`${call} ${code}`), { code });
  }

  #leave(): boolean {
    if (this.#state === "closed") return false;
    this.#state = "closed";
    this.#unwritten = undefined;
    this.#closeLater(undefined);
    return true;
  }

  /** As in node:net, closing it calls back later. */
  #closeLater(error: Error | undefined): void {
    void Promise.resolve().then(() => this.handleClose(error));
  }

  #handleFailure(error: Error): void {
    this.#failure ??= error;
    // Earlier bytes are still to be read, and reading then fails too.
    if (this.isReading && !this.hasPeerEnded) return;
    this.#fail(this.#failure);
  }

  #fail(error: Error): void {
    this.#state = "closed";
    this.#unwritten = undefined;
    this.native.streamClose!(this.#descriptor);
    this.#closeLater(error);
  }

  readonly #onRead = (count: number): void => {
    if (this.#state === "closed") return;
    if (count > 0) {
      this.handleBytes(this.#readBuffer, count);
      return;
    }
    if (count < 0 || this.#failure !== undefined) {
      this.#fail(this.#failure ?? this.#error("read", count));
      return;
    }
    const hasOwnEnded = this.#state === "ended";
    this.handleEnd();
    if (!hasOwnEnded || this.#hasLeft()) return;
    this.#state = "closed";
    this.native.streamClose!(this.#descriptor);
    this.handleClose(undefined);
  };

  readonly #onWritable = (): void => {
    const bytes = this.#unwritten;
    this.#unwritten = undefined;
    if (bytes !== undefined && this.write(bytes)) this.handleWritten();
  };
}
