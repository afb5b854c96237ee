import { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { getSystemErrorName } from "node:util";
import type { NativeModule } from "../host/io/native-module.ts";
import { formatHost } from "../wire/socket-address.ts";
import type { ByteStream, ByteStreamEvents } from "./byte-stream.ts";
import { descriptorOf, tuneDescriptor } from "./tcp-tuning.ts";

/** A byte stream over a descriptor, by native/stream.c. */
export class DescriptorStream implements ByteStream {
  readonly #native: NativeModule;
  readonly #descriptor: number;
  readonly #readBuffer: Uint8Array;
  readonly #surplus: Uint8Array | undefined;
  #events: ByteStreamEvents | undefined;
  /** Bytes on loan until the system accepts them. */
  #unwritten: Uint8Array | undefined;
  #state: "open" | "ended" | "closed" = "open";
  #hasPeerEnded = false;

  /**
   * @param descriptor  of a connected socket, which the stream owns from now on
   * @param surplus     what was already read from it
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

  write(bytes: Uint8Array, hasMore = false): boolean {
    const written = this.#native.streamWrite!(this.#descriptor, bytes, bytes.length, hasMore);
    // A failed connection also fails when it is read, and is closed then.
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

  /** Gives the open connection away. @returns its descriptor; undefined when it is closed */
  release(): number | undefined {
    if (!this.#leave()) return undefined;
    this.#native.streamRelease!(this.#descriptor);
    return this.#descriptor;
  }

  #leave(): boolean {
    if (this.#state === "closed") return false;
    this.#state = "closed";
    this.#unwritten = undefined;
    // As in node:net, closing it calls back later.
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
 * Takes the connection of a socket that has nothing left to write away from node:net.
 *
 * @returns undefined for any other stream, or if no descriptor is left; the stream is then unchanged
 */
export function takeDescriptor(
  stream: Duplex,
  native: NativeModule,
): { readonly descriptor: number; readonly surplus: Uint8Array | undefined } | undefined {
  // A subclass such as TLSSocket encrypts what it is given.
  const isBare = Object.getPrototypeOf(stream) === Socket.prototype;
  const own = isBare && !stream.destroyed && stream.writableLength === 0 ? descriptorOf(stream) : undefined;
  if (own === undefined) return undefined;
  let descriptor: number;
  try {
    descriptor = native.descriptorDuplicate!(own);
  } catch {
    // The process has no descriptors left.
    return undefined;
  }
  stream.pause();
  const surplus = (stream.read() as Uint8Array | null) ?? undefined;
  stream.on("error", () => {});
  stream.destroy();
  return { descriptor, surplus };
}
