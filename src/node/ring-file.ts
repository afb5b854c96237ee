import type { Stats } from "node:fs";
import { closeSync, fchmodSync, lstatSync, openSync, renameSync, rmSync, write } from "node:fs";
import { promisify } from "node:util";
import { HostError } from "../core/errors.ts";
import type { RingFile } from "../host/tap/ring-file.ts";
import { numbered } from "../host/tap/ring-file.ts";
import { systemReason } from "./system-text.ts";

const MAX_WAITING_BYTES = 8_388_608;
const writeAll = promisify(write);

/** See {@link OpenRingFile}. */
export function openRingFile(path: string, files: number): RingFile {
  return new NodeRingFile(path, files);
}

/** Writes one chunk after another, with at most one write in progress. */
class NodeRingFile implements RingFile {
  readonly #path: string;
  readonly #files: number;
  #descriptor: number;
  /** Chunks to write; undefined starts the next file. */
  #waiting: (Uint8Array | undefined)[] = [];
  #waitingBytes = 0;
  #working: Promise<void> | undefined;
  #hasFailed = false;

  constructor(path: string, files: number) {
    this.#path = path;
    this.#files = files;
    this.#descriptor = create(path);
  }

  get isFull(): boolean {
    return this.#hasFailed || this.#waitingBytes > MAX_WAITING_BYTES;
  }

  write(bytes: Uint8Array): void {
    if (this.#hasFailed) return;
    this.#waiting.push(bytes);
    this.#waitingBytes += bytes.length;
    this.#work();
  }

  rotate(): void {
    this.#waiting.push(undefined);
    this.#work();
  }

  async close(): Promise<void> {
    await this.#working;
    if (this.#descriptor >= 0) closeSync(this.#descriptor);
    this.#descriptor = -1;
  }

  #work(): void {
    this.#working ??= this.#writeWaiting().finally(() => {
      this.#working = undefined;
    });
  }

  async #writeWaiting(): Promise<void> {
    try {
      for (let i = 0; i < this.#waiting.length; i++) {
        const bytes = this.#waiting[i];
        if (bytes === undefined) this.#beginNext();
        else await this.#writeWhole(bytes);
        if (i < 64) continue;
        this.#waiting = this.#waiting.slice(i + 1);
        i = -1;
      }
    } catch {
      // Writes nothing more, because half a block would spoil the file; lost records are counted.
      this.#hasFailed = true;
    }
    this.#waiting = [];
    this.#waitingBytes = 0;
  }

  async #writeWhole(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length; ) {
      const { bytesWritten } = await writeAll(this.#descriptor, bytes, at);
      at += bytesWritten;
    }
    this.#waitingBytes -= bytes.length;
  }

  #beginNext(): void {
    const path = this.#path;
    closeSync(this.#descriptor);
    this.#descriptor = -1;
    rmSync(this.#files === 1 ? path : numbered(path, this.#files - 1), { force: true });
    for (let number = this.#files - 2; number >= 0; number--) {
      const from = number === 0 ? path : numbered(path, number);
      try {
        renameSync(from, numbered(path, number + 1));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
      }
    }
    this.#descriptor = create(path);
  }
}

/** @returns its descriptor. @throws HostError ERR_FILE */
function create(path: string): number {
  try {
    let found: Stats | undefined;
    try {
      found = lstatSync(path);
    } catch {
      // The file does not exist.
    }
    // A pipe would block the thread, and a link may lead anywhere.
    if (found?.isFile() === false) throw new Error("is not a regular file");
    const descriptor = openSync(path, "w", 0o600);
    fchmodSync(descriptor, 0o600);
    return descriptor;
  } catch (cause) {
    throw new HostError("ERR_FILE", `${path}: ${systemReason(cause)}`, { cause });
  }
}
