import type { EventLoop, Wakeable } from "./event-loop.ts";

/** A packet on a link; `size` in bytes with all headers. */
export interface Packet {
  readonly size: number;
  readonly to: { receive(now: number, packet: Packet): void };
}

export interface Sink {
  send(packet: Packet): void;
}

/** Rates in bytes per millisecond (1 Mbit/s is 125), times in milliseconds. */
export interface LinkOptions {
  readonly rate: number;
  readonly delay: number;
  /** Longest queueing delay of a packet, at the rate above. */
  readonly queue: number;
  /** Share of packets lost before the queue, 0 to 1. */
  readonly loss: number;
  /** Loses packets after transmission instead, as a radio link does: a lost packet has used the link. */
  readonly losesSent?: boolean;
  /** Mean number of packets lost in a row (Gilbert's model); 1 for independent losses. */
  readonly burst?: number;
  /** Longest extra delay of a packet, uniform; packets stay in order. */
  readonly jitter?: number;
}

const NOBODY: Packet["to"] = { receive: () => {} };

/** One direction of a bottleneck: random loss, a drop-tail queue, a rate, a delay. */
export class Link implements Wakeable {
  rate: number;
  loss: number;
  jitter: number;
  delivered = 0;
  deliveredBytes = 0;
  lost = 0;
  dropped = 0;

  readonly #loop: EventLoop;
  readonly #random: () => number;
  readonly #options: LinkOptions;
  readonly #limit: number;
  #queue: Packet[] = [];
  #head = 0;
  #queuedBytes = 0;
  #isBusy = false;
  #isBad = false;
  #arrivedAt = 0;
  readonly #arrivals: Packet[] = [];
  #nextArrival = 0;

  /** @param random  returns 32 random bits */
  constructor(loop: EventLoop, random: () => number, options: LinkOptions) {
    this.#loop = loop;
    this.#random = random;
    this.#options = options;
    this.rate = options.rate;
    this.loss = options.loss;
    this.jitter = options.jitter ?? 0;
    this.#limit = Math.max(2 * 1514, options.rate * options.queue);
  }

  /** Queueing delay of a packet sent now, in milliseconds. */
  get waiting(): number {
    return this.#queuedBytes / this.rate;
  }

  send(packet: Packet): void {
    const isLost = this.#isLost();
    if (isLost) this.lost++;
    if (isLost && this.#options.losesSent !== true) return;
    if (this.#queuedBytes + packet.size > this.#limit) {
      this.dropped++;
      return;
    }
    this.#queuedBytes += packet.size;
    this.#queue.push(isLost ? { size: packet.size, to: NOBODY } : packet);
    if (!this.#isBusy) this.#serve(this.#loop.now);
  }

  wake(now: number, argument: number): void {
    if (argument === 1) {
      const packet = this.#arrivals[this.#nextArrival++];
      if (this.#nextArrival === 1024) {
        this.#arrivals.splice(0, this.#nextArrival);
        this.#nextArrival = 0;
      }
      packet.to.receive(now, packet);
      return;
    }
    const packet = this.#queue[this.#head++];
    if (this.#head === 1024) {
      this.#queue.splice(0, this.#head);
      this.#head = 0;
    }
    this.#queuedBytes -= packet.size;
    this.delivered++;
    this.deliveredBytes += packet.size;
    const { delay } = this.#options;
    const extra = this.jitter === 0 ? 0 : (this.#random() / 2 ** 32) * this.jitter;
    this.#arrivedAt = Math.max(this.#arrivedAt, now + delay + extra);
    this.#arrivals.push(packet);
    this.#loop.at(this.#arrivedAt, this, 1);
    this.#isBusy = false;
    if (this.#head < this.#queue.length) this.#serve(now);
  }

  #serve(now: number): void {
    this.#isBusy = true;
    this.#loop.at(now + this.#queue[this.#head].size / this.rate, this, 0);
  }

  #isLost(): boolean {
    const { burst = 1 } = this.#options;
    if (this.loss === 0) return false;
    const chance = this.#random() / 2 ** 32;
    if (burst <= 1) return chance < this.loss;
    // Gilbert: the bad state loses everything and lasts 1 / leave packets on average.
    const leave = 1 / burst;
    const enter = (this.loss * leave) / (1 - this.loss);
    this.#isBad = this.#isBad ? chance >= leave : chance < enter;
    return this.#isBad;
  }
}

/** A path to a link, which delays packets. */
class Access implements Sink, Wakeable {
  readonly #loop: EventLoop;
  readonly #to: Sink;
  readonly #delay: number;
  readonly #packets: Packet[] = [];

  constructor(loop: EventLoop, to: Sink, delay: number) {
    this.#loop = loop;
    this.#to = to;
    this.#delay = delay;
  }

  send(packet: Packet): void {
    this.#packets.push(packet);
    this.#loop.at(this.#loop.now + this.#delay, this);
  }

  wake(): void {
    this.#to.send(this.#packets.shift()!);
  }
}

/** A path to `to` with `delay` milliseconds of delay. */
export function delayed(loop: EventLoop, to: Sink, delay: number): Sink {
  return delay === 0 ? to : new Access(loop, to, delay);
}
