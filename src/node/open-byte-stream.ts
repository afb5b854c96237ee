import type { Io } from "../host/io/io.ts";
import type { ByteStream } from "./byte-stream.ts";
import { CodedByteStream } from "./byte-stream-coded.ts";
import { DescriptorStream, takeDescriptor } from "./byte-stream-native.ts";
import { PlainStream } from "./byte-stream-plain.ts";
import type { Connection } from "./carrier.ts";
import { CodedStream } from "./coded-stream.ts";
import { descriptorOf, tuneDescriptor } from "./tcp-tuning.ts";
import { WebSocketByteStream } from "./web/byte-stream-web-socket.ts";
import { WebSocketStream } from "./web/web-socket-stream.ts";

/**
 * Runs a tunnel over a connected stream. A bare socket that this process made is taken away from node:net where native
 * I/O is available, also from under a coding.
 *
 * @param heartbeatMs  sets the deadlines of the connection itself (keepalive, TCP_USER_TIMEOUT)
 * @param readBuffer   receives what is read natively; streams may share it
 */
export function openByteStream(
  connection: Connection,
  io: Io,
  heartbeatMs: number,
  readBuffer: Uint8Array,
): ByteStream {
  const { stream, onread, isOurs } = connection;
  const { native } = io;
  const parts = stream instanceof CodedStream ? stream.release() : undefined;
  if (parts !== undefined) {
    const inner = openByteStream({ stream: parts.inner, onread: false, isOurs }, io, heartbeatMs, readBuffer);
    return new CodedByteStream(inner, parts.coding, parts.surplus);
  }
  const opened = stream instanceof WebSocketStream ? stream.release() : undefined;
  if (opened !== undefined) {
    tuneDescriptor(descriptorOf(opened.link.socket), native, heartbeatMs);
    return new WebSocketByteStream(opened.link, opened.surplus);
  }
  const mayTake = native?.streamOpen !== undefined && isOurs && !onread;
  const taken = mayTake ? takeDescriptor(stream, native) : undefined;
  if (taken !== undefined) {
    return new DescriptorStream(native!, taken.descriptor, readBuffer, heartbeatMs, taken.surplus);
  }
  tuneDescriptor(descriptorOf(stream), native, heartbeatMs);
  return new PlainStream(stream, onread);
}
