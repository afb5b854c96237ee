import type { Loop } from "../loop.ts";
import type { BatchSource } from "./batch-writer.ts";
import { BatchWriter } from "./batch-writer.ts";
import type { ByteStream } from "./byte-stream.ts";

/** A connection of a server, and its writer. */
export interface ConnectionLink {
  readonly stream: ByteStream;
  readonly writer: BatchWriter;
}

/** Events of a connection, as long as it is linked. */
export interface ConnectionEvents {
  onBytes(chunk: Uint8Array, length: number): void;
  /** The client has ended its side; it can still be written to. */
  onEnded(): void;
  /** The connection is closed, and no longer linked. */
  onDisconnected(): void;
  /** Why the connection closed, if it failed, linked or not. */
  onFailed(error: Error): void;
}

/** Starts a connection and enters it in `links` under its number. A connection that is removed from there emits no more events. */
export function linkConnection(
  links: (ConnectionLink | undefined)[],
  connection: number,
  stream: ByteStream,
  source: BatchSource,
  loop: Loop,
  events: ConnectionEvents,
): void {
  const writer = new BatchWriter(stream, source, loop);
  const link: ConnectionLink = { stream, writer };
  links[connection] = link;
  const isCurrent = () => links[connection] === link;
  stream.start({
    onBytes: (chunk, length) => {
      if (isCurrent()) events.onBytes(chunk, length);
    },
    onEnd: () => {
      if (isCurrent()) events.onEnded();
    },
    onWritten: () => {
      if (isCurrent()) writer.handleWritten();
    },
    onClose: (error) => {
      if (error !== undefined) events.onFailed(error);
      writer.handleClosed();
      if (!isCurrent()) return;
      links[connection] = undefined;
      events.onDisconnected();
    },
  });
}
