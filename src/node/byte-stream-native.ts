import { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { getSystemErrorName } from "node:util";
import { formatHost } from "../wire/socket-address.ts";
import type { ByteStream, ByteStreamEvents } from "./byte-stream.ts";
import type { NativeModule } from "./native-module.ts";
import { descriptorOf, tuneDescriptor } from "./tcp-tuning.ts";

/** Over a descriptor, by native/stream.c. */
export class DescriptorStream implements ByteStream {
  readonly #native: NativeModule;
  readonly #descriptor: number;
  readonly #readBuffer: Uint8Array;
  readonly #surplus: Uint8Array | undefined;
  #events: ByteStreamEvents | undefined;
  /** What is lent until the system takes it. */
  #unwritten: Uint8Array | undefined;
  #state: "open" | "ended" | "closed" = "open";
  #hasPeerEnded = false;

  /**
   * @param descriptor  of a connected socket, which is the stream's from now on
   * @param surplus     what was read of it already
   */
  constructor(
    native: NativeModule,
    descriptor: number,
    readBuffer: Uint8Array,
    heartbeatMs: number,
    surplus: Uint8Array | undefined,
  ) {
    this.#native = native;
    this.#descriptor = descriptor;
    this.#readBuffer = readBuffer;
    this.#surplus = surplus;
    tuneDescriptor(descriptor, native, heartbeatMs);
    native.streamOpen!(descriptor, readBuffer, this.#onRead, this.#onWritable);
  }

  get isClosed(): boolean {
    return this.#state !== "open";
  }

  get localIp(): string | undefined {
    const address = this.#state === "closed" ? undefined : this.#native.socketAddress!(this.#descriptor);
    return address === undefined ? undefined : formatHost(address);
  }

  start(events: ByteStreamEvents): void {
    this.#events = events;
    if (this.#surplus !== undefined) events.onBytes(this.#surplus, this.#surplus.length);
  }

  write(bytes: Uint8Array): boolean {
    const written = this.#native.streamWrite!(this.#descriptor, bytes, bytes.length);
    // A connection that fails says so when it is read, too, and is closed then.
    if (written < 0 && this.#hasPeerEnded) this.destroy();
    if (written === bytes.length || written < 0) return true;
    this.#unwritten = bytes.subarray(written);
    return false;
  }

  end(): void {
    if (this.#state !== "open") return;
    if (this.#hasPeerEnded) {
      // The system sends what it has taken.
      this.destroy();
      return;
    }
    this.#state = "ended";
    this.#native.streamEnd!(this.#descriptor);
  }

  destroy(): void {
    if (this.#leave()) this.#native.streamClose!(this.#descriptor);
  }

  /** Gives the connection away, open. @returns its descriptor; undefined when it is closed */
  release(): number | undefined {
    if (!this.#leave()) return undefined;
    this.#native.streamRelease!(this.#descriptor);
    return this.#descriptor;
  }

  #leave(): boolean {
    if (this.#state === "closed") return false;
    this.#state = "closed";
    this.#unwritten = undefined;
    // As node:net does: whoever closes it is told later, like everybody else.
    queueMicrotask(() => this.#events?.onClose(undefined));
    return true;
  }

  readonly #onRead = (count: number): void => {
    if (this.#state === "closed") return;
    if (count > 0) {
      this.#events!.onBytes(this.#readBuffer, count);
      return;
    }
    if (count === 0 && this.#state === "open" && !this.#hasPeerEnded) {
      this.#hasPeerEnded = true;
      this.#events!.onEnd();
      return;
    }
    this.#state = "closed";
    this.#unwritten = undefined;
    this.#native.streamClose!(this.#descriptor);
    this.#events!.onClose(count === 0 ? undefined : new Error(`read ${getSystemErrorName(count)}`));
  };

  readonly #onWritable = (): void => {
    const bytes = this.#unwritten;
    this.#unwritten = undefined;
    if (bytes !== undefined && this.write(bytes)) this.#events!.onWritten();
  };
}

/**
 * Takes the connection of a socket that nothing waits in for the system, away from node:net.
 *
 * @returns undefined for any other stream, and where that takes one descriptor too many: the stream stays as it is
 */
export function takeDescriptor(
  stream: Duplex,
  native: NativeModule,
): { readonly descriptor: number; readonly surplus: Uint8Array | undefined } | undefined {
  // Not of a class that encrypts what it is given.
  const isBare = Object.getPrototypeOf(stream) === Socket.prototype;
  const own = isBare && !stream.destroyed && stream.writableLength === 0 ? descriptorOf(stream) : undefined;
  if (own === undefined) return undefined;
  let descriptor: number;
  try {
    descriptor = native.descriptorDuplicate!(own);
  } catch {
    // The process has no more.
    return undefined;
  }
  stream.pause();
  const surplus = (stream.read() as Uint8Array | null) ?? undefined;
  stream.on("error", () => {});
  stream.destroy();
  return { descriptor, surplus };
}
