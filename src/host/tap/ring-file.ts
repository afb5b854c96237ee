/** A file that is written in the background and bounded: when it is full it becomes an older one, and the oldest goes. */
export interface RingFile {
  /** More waits to be written than memory is meant for, or the file cannot be written any more. */
  readonly isFull: boolean;
  /** Appends bytes, which from then on belong to the file. */
  write(bytes: Uint8Array): void;
  /** What is written from now on begins a new file. */
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
