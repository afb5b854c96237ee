import { Socket } from "node:net";
import type { NativeModule } from "../../host/io/native-module.ts";
import type { ByteStream } from "../byte-stream.ts";
import { DescriptorStream } from "../byte-stream-native.ts";
import { PlainStream } from "../byte-stream-plain.ts";

/** Takes a connection away from a byte stream, for node:net. @returns paused; undefined when it is closed */
export function releaseSocket(stream: ByteStream, native: NativeModule | undefined): Socket | undefined {
  if (stream instanceof PlainStream) {
    const released = stream.release();
    return released instanceof Socket ? released : undefined;
  }
  const descriptor = stream instanceof DescriptorStream ? stream.release() : undefined;
  if (descriptor === undefined) return undefined;
  try {
    return new Socket({ fd: descriptor, readable: true, writable: true, allowHalfOpen: true }).pause();
  } catch {
    native!.descriptorClose!(descriptor);
    return undefined;
  }
}
