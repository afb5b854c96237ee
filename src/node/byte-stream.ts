/** What an endpoint hears of a tunnel's connection. */
export interface ByteStreamEvents {
  /** Bytes that came; `chunk` is borrowed until the call returns. */
  onBytes(chunk: Uint8Array, length: number): void;
  /** The other end has ended, and no more bytes come. What is written still goes, until {@link ByteStream.end}. */
  onEnd(): void;
  /** What {@link ByteStream.write} did not take at once is taken. */
  onWritten(): void;
  /** Once, and nothing after it. @param error  undefined when both ends have ended, or this one has closed it */
  onClose(error: Error | undefined): void;
}

/** The connection of a tunnel: bytes both ways. */
export interface ByteStream {
  readonly isClosed: boolean;
  /** Its local IP, where it is known. */
  readonly localIp: string | undefined;
  /** Begins to read. To be called in the turn of the loop in which the stream was opened. */
  start(events: ByteStreamEvents): void;
  /**
   * @param hasMore  more is to be written than the path takes: what came may be acknowledged with that
   * @returns false when not all is taken at once: nothing more is written, and `bytes` stay lent, until onWritten
   */
  write(bytes: Uint8Array, hasMore?: boolean): boolean;
  /** Nothing more is written; closes once the other end has ended as well. Only while nothing is lent. */
  end(): void;
  /** Closes at once. */
  destroy(): void;
}
