import { Socket } from "node:net";
import { Duplex } from "node:stream";
import { copyOf } from "../../core/copy-bytes.ts";
import { HostError } from "../../core/errors.ts";
import type { ByteStream } from "../../host/stream/byte-stream.ts";
import { DescriptorStream } from "../../host/stream/byte-stream-native.ts";
import { PlainStream } from "./byte-stream-plain.ts";

/** A byte stream as a stream of Node, for Node's libraries. */
export class ByteStreamDuplex extends Duplex {
  readonly stream: ByteStream;
  #done: ((error?: Error | null) => void) | undefined;

  /** @param stream  which it then owns */
  constructor(stream: ByteStream) {
    super({ allowHalfOpen: true });
    this.stream = stream;
    // The owner may not listen yet; `errored` keeps the reason.
    this.on("error", () => {});
    stream.handTo({
      onBytes: (chunk, length) => {
        const part = chunk.subarray(0, length);
        const bytes = stream.reusesMemory ? copyOf(part) : part;
        if (!this.push(bytes)) stream.pause();
      },
      onEnd: () => void this.push(null),
      onWritten: () => this.#finish(),
      onClose: (error) => {
        if (error !== undefined) this.destroy(error);
        else if (!this.readableEnded || !this.writableEnded) this.#handleClosed();
      },
    });
  }

  override _read(): void {
    this.stream.resume();
  }

  override _write(chunk: Uint8Array, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    if (this.stream.write(chunk)) done();
    else this.#done = done;
  }

  override _final(done: (error?: Error | null) => void): void {
    this.stream.end();
    done();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.stream.destroy();
    done(error);
  }

  #finish(): void {
    const done = this.#done;
    this.#done = undefined;
    done?.();
  }

  /** Bytes that were read before can still be read from here. */
  #handleClosed(): void {
    if (this.writableEnded && this.readableLength > 0) this.once("end", () => this.destroy());
    else this.destroy();
  }
}

/**
 * Takes the connection from a byte stream, for node:net.
 *
 * @returns it paused; undefined if it is closed, or the outermost stream is not a socket
 */
export function releaseSocket(stream: ByteStream): Socket | undefined {
  if (stream instanceof PlainStream) {
    const released = stream.release();
    return released instanceof Socket ? released : undefined;
  }
  const released = stream instanceof DescriptorStream ? stream.release() : undefined;
  if (released === undefined) return undefined;
  const { descriptor, unread } = released;
  try {
    const socket = socketOf(descriptor);
    if (unread !== undefined) socket.unshift(unread);
    return socket;
  } catch {
    (stream as DescriptorStream).native.descriptorClose!(descriptor);
    return undefined;
  }
}

/** Makes a node:net socket over a connected descriptor, paused. @throws Error when the descriptor cannot become one */
export function socketOf(descriptor: number): Socket {
  return new Socket({ fd: descriptor, readable: true, writable: true, allowHalfOpen: true }).pause();
}

/**
 * The stream of Node inside a byte stream, or over it, paused, for a library that then owns it.
 *
 * @throws HostError ERR_CONNECTION_LOST when it is closed
 */
export function toDuplex(stream: ByteStream): Duplex {
  const isNodes = stream instanceof PlainStream || stream instanceof DescriptorStream;
  const duplex =
    stream instanceof PlainStream
      ? stream.release()
      : stream instanceof DescriptorStream
        ? releaseSocket(stream)
        : undefined;
  if (duplex === undefined && (isNodes || stream.isClosed)) {
    throw new HostError("ERR_CONNECTION_LOST", "closed by the other end");
  }
  return duplex ?? new ByteStreamDuplex(stream);
}
