import type { PacketBatch } from "../../core/tun2socks/packet-batch.ts";
import type { OnPackets } from "../../core/tun2socks/packet-stream-reader.ts";
import type { Logger } from "../log.ts";
import type { Loop, Timer } from "../loop.ts";
import type { Tcp } from "../stream/tcp.ts";
import { PacketStream } from "./packet-stream.ts";

const FIRST_PAUSE_MS = 100;
const LAST_PAUSE_MS = 5_000;
/** A link that lasted this long counts as good, so the next attempt follows soon. */
const GOOD_MS = 10_000;
const END_MS = 1_000;

/** A connection to a device elsewhere. */
export interface PacketLink {
  /** Writes all packets, whose memory is borrowed until it returns. @returns how many were dropped */
  write(packets: PacketBatch): number;
  close(): Promise<void>;
  /** Packets and datagrams that the device's end has dropped, by reason, if it is in this process. */
  drops?(): Readonly<Record<string, number>>;
}

/** One run of a link. */
export interface OpenLink {
  write(packets: PacketBatch): number;
  /** Called once, when the link is no longer needed; `onEnd` follows. */
  end(): void;
}

/** A link that opens with the first packet, and again after it ends. */
export class RevivedLink implements PacketLink {
  readonly #open: (onEnd: (reason: string) => void) => OpenLink;
  readonly #loop: Loop;
  readonly #log: Logger;
  readonly #what: string;
  #link: OpenLink | undefined;
  #timer: Timer | undefined;
  #pauseMs = FIRST_PAUSE_MS;
  #isClosed = false;
  #onClosed: () => void = () => {};

  /** @param open  calls `onEnd` once, later */
  constructor(what: string, loop: Loop, log: Logger, open: (onEnd: (reason: string) => void) => OpenLink) {
    this.#what = what;
    this.#loop = loop;
    this.#log = log;
    this.#open = open;
  }

  start(): void {
    if (this.#link !== undefined || this.#timer !== undefined || this.#isClosed) return;
    const startedAt = this.#loop.now();
    const link = this.#open((reason) => {
      if (this.#link !== link) return;
      this.#link = undefined;
      this.#onClosed();
      if (this.#isClosed) return;
      if (this.#loop.now() - startedAt > GOOD_MS) this.#pauseMs = FIRST_PAUSE_MS;
      const fields = { error: reason };
      if (this.#pauseMs === FIRST_PAUSE_MS) this.#log.warn(fields, `${this.#what} ended; trying again`);
      else this.#log.debug(fields, `${this.#what} ended; trying again`);
      this.#timer = this.#loop.after(this.#pauseMs, () => {
        this.#timer = undefined;
        this.start();
      });
      this.#pauseMs = Math.min(LAST_PAUSE_MS, 2 * this.#pauseMs);
    });
    this.#link = link;
  }

  write(packets: PacketBatch): number {
    this.start();
    return this.#link?.write(packets) ?? packets.count;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#timer?.cancel();
    const link = this.#link;
    if (link === undefined) return;
    await new Promise<void>((done) => {
      const timer = this.#loop.after(END_MS, done);
      this.#onClosed = () => {
        timer.cancel();
        done();
      };
      link.end();
    });
  }
}

/** Connects to a device that listens on a Unix socket, and reconnects when the connection ends. */
export function connectPackets(
  path: string,
  tcp: Tcp,
  loop: Loop,
  onPackets: OnPackets,
  log: Logger,
): PacketLink {
  const link = new RevivedLink(`unix:${path}`, loop, log, (onEnd) =>
    openUnix(path, tcp, loop, onPackets, onEnd),
  );
  link.start();
  return link;
}

function openUnix(
  path: string,
  tcp: Tcp,
  loop: Loop,
  onPackets: OnPackets,
  onEnd: (reason: string) => void,
): OpenLink {
  let packets: PacketStream | undefined;
  let giveUp: (() => void) | undefined;
  try {
    giveUp = tcp.connect({ path }, undefined, (result) => {
      giveUp = undefined;
      if (typeof result === "string") onEnd(result);
      else packets = new PacketStream(result, onPackets, onEnd);
    });
  } catch (error) {
    loop.nextTurn(() => onEnd((error as Error).message));
  }
  return {
    write: (batch) => packets?.write(batch) ?? batch.count,
    end: () => {
      packets?.close();
      if (giveUp === undefined) return;
      giveUp();
      loop.nextTurn(() => onEnd("the attempt was cancelled"));
    },
  };
}
