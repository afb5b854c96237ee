/** A bounded file, written in the background. A full file becomes an older one, and the oldest is removed. */
export interface RingFile {
  /** True if too many bytes wait to be written, or the file cannot be written any more. */
  readonly isFull: boolean;
  /** Appends bytes, which the file then owns. */
  write(bytes: Uint8Array): void;
  /** Starts a new file for what is written from now on. */
  rotate(): void;
  /** Writes the rest. */
  close(): Promise<void>;
}

/**
 * Creates a file, only for its owner.
 *
 * @param path   of the newest file
 * @param files  how many are kept; older ones have a number before the last dot of their name, counting from 1
 * @throws HostError ERR_FILE that names it
 */
export type OpenRingFile = (path: string, files: number) => RingFile;

/** The name of an older or another file: `tap.pcapng` and 1 give `tap.1.pcapng`. */
export function numbered(path: string, number: string | number): string {
  const [, stem, ending] = /^(.*?)(\.[^./]*)?$/s.exec(path)!;
  return `${stem}.${number}${ending ?? ""}`;
}
