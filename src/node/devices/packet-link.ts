import { spawn } from "node:child_process";
import { connect } from "node:net";
import type { Readable, Writable } from "node:stream";
import type { PacketBatch } from "../../core/tun2socks/packet-batch.ts";
import type { OnPackets } from "../../core/tun2socks/packet-stream-reader.ts";
import type { PacketLink } from "../../host/devices/packet-link.ts";
import type { Logger } from "../../host/log.ts";
import { readPackets, writePackets } from "./packet-stream.ts";

const FIRST_PAUSE_MS = 100;
const LAST_PAUSE_MS = 5_000;
/** A stream that lasted this long counts as good: the next attempt follows soon. */
const GOOD_MS = 10_000;
const END_MS = 1_000;

interface Streams {
  readonly input: Readable;
  readonly output: Writable;
  /** Called once, when the stream is no longer needed; `onEnd` follows. */
  end(): void;
}

/** A stream of packets that is reopened whenever it ends. */
class RevivedLink implements PacketLink {
  readonly #open: (onEnd: (reason: string) => void) => Streams;
  readonly #onPackets: OnPackets;
  readonly #log: Logger;
  readonly #what: string;
  #streams: Streams | undefined;
  #timer: NodeJS.Timeout | undefined;
  #pauseMs = FIRST_PAUSE_MS;
  #isClosed = false;
  #onClosed: () => void = () => {};

  constructor(
    what: string,
    onPackets: OnPackets,
    log: Logger,
    open: (onEnd: (reason: string) => void) => Streams,
  ) {
    this.#what = what;
    this.#onPackets = onPackets;
    this.#log = log;
    this.#open = open;
  }

  start(): void {
    if (this.#streams !== undefined || this.#timer !== undefined || this.#isClosed) return;
    const startedAt = Date.now();
    const streams = this.#open((reason) => {
      if (this.#streams !== streams) return;
      this.#streams = undefined;
      this.#onClosed();
      if (this.#isClosed) return;
      if (Date.now() - startedAt > GOOD_MS) this.#pauseMs = FIRST_PAUSE_MS;
      const fields = { error: reason };
      if (this.#pauseMs === FIRST_PAUSE_MS) this.#log.warn(fields, `${this.#what} ended; trying again`);
      else this.#log.debug(fields, `${this.#what} ended; trying again`);
      this.#timer = setTimeout(() => {
        this.#timer = undefined;
        this.start();
      }, this.#pauseMs);
      this.#pauseMs = Math.min(LAST_PAUSE_MS, 2 * this.#pauseMs);
    });
    this.#streams = streams;
    readPackets(streams.input, this.#onPackets, this.#log);
  }

  write(packets: PacketBatch): number {
    this.start();
    return writePackets(this.#streams?.output, packets);
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    const streams = this.#streams;
    if (streams === undefined) return;
    await new Promise<void>((done) => {
      const timer = setTimeout(done, END_MS);
      this.#onClosed = () => {
        clearTimeout(timer);
        done();
      };
      streams.end();
    });
  }
}

/** Connects to a device that listens on a Unix socket, and reconnects whenever that ends. */
export function connectPackets(path: string, onPackets: OnPackets, log: Logger): PacketLink {
  const link = new RevivedLink(`unix:${path}`, onPackets, log, (onEnd) => {
    const socket = connect({ path });
    let failure: Error | undefined;
    socket.on("error", (error) => {
      failure = error;
    });
    socket.once("close", () => onEnd(failure?.message ?? "closed by the other end"));
    return { input: socket, output: socket, end: () => socket.destroy() };
  });
  link.start();
  return link;
}

/**
 * Starts a program with a device on its standard input and output for the first packet, and restarts it when it ends.
 *
 * @param argv  program and arguments, without a shell
 */
export function spawnPackets(argv: readonly string[], onPackets: OnPackets, log: Logger): PacketLink {
  return new RevivedLink(argv[0], onPackets, log, (onEnd) => {
    const child = spawn(argv[0], argv.slice(1), { stdio: ["pipe", "pipe", "inherit"] });
    let failure: Error | undefined;
    child.on("error", (error) => {
      failure = error;
    });
    child.stdin.on("error", () => {});
    // Anything but packets ends it, like a closed pipe.
    child.stdout.once("close", () => child.kill());
    child.once("close", (status, signal) => onEnd(failure?.message ?? `exit ${status ?? signal}`));
    return { input: child.stdout, output: child.stdin, end: () => child.kill() };
  });
}
