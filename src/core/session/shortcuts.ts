import { grown } from "../grown.ts";

/** Batches of a flow that the machine handles itself before it offers a shortcut, so that a single query costs nothing, ... */
const FIRST_BATCHES = 4;
/** ... and before it offers one again after it was declined. */
const LATER_BATCHES = 64;

/**
 * Most contexts of a session with shortcuts. In a flood of 1,000 flows, looking up each one takes longer than handling all of them here in
 * one batch. The capsule that registers a further context ends all shortcuts.
 */
export const MAX_SHORTCUT_CONTEXTS = 256;

/** What shortcuts need from a tunnel. */
export interface ShortcutTunnel {
  readonly epoch: ShortcutEpoch;
  /** Begins another epoch, if there are shortcuts. */
  endShortcuts(): void;
  handleShortcutSent(count: number, bytes: number, length: number): void;
  handleShortcutReceived(time: number, length: number): void;
}

/** A period in which nothing but datagrams passes through a tunnel. All shortcuts that begin in an epoch end with it. */
export class ShortcutEpoch {
  readonly tunnel: ShortcutTunnel;
  /** Whether datagrams from the tunnel have shortcuts too. */
  hasIn = false;
  #end: (() => void) | undefined;

  constructor(tunnel: ShortcutTunnel) {
    this.tunnel = tunnel;
  }

  /** Whether a shortcut has begun in this epoch. */
  get isUsed(): boolean {
    return this.#end !== undefined;
  }

  /** The host has begun a shortcut. @param end  ends all shortcuts of the tunnel; called as soon as the epoch is over, and only then */
  begin({ isOut }: Pick<Shortcut, "isOut">, end: () => void): void {
    this.#end = end;
    if (!isOut) this.hasIn = true;
  }

  /** Only for the tunnel. */
  end(): void {
    this.#end?.();
  }
}

/** A flow that native I/O may carry by itself, from a UDP socket to a connection (out) or back, until its epoch ends. */
export interface Shortcut {
  readonly epoch: ShortcutEpoch;
  readonly isOut: boolean;
  /** The machine's number of the connection. */
  readonly connection: number;
  readonly association: number;
  /** Slot in the table of contexts, its generation, and its id on the wire. */
  readonly context: number;
  readonly generation: number;
  readonly id: number;
}

/** A flow that has had enough batches for a shortcut. */
export type ShortcutOffer = Pick<Shortcut, "epoch" | "isOut" | "context">;

/** The machine's number of the connection that carries an offered flow; undefined if the flow may have no shortcut. */
export type ConnectionOfOffer = (offer: ShortcutOffer, association: number) => number | undefined;

/** Decides which flows are offered shortcuts, and remembers which have one. Flows are known by the slots of their contexts. */
export class Shortcuts {
  /** Whether the host supports shortcuts. Otherwise none are offered. */
  isWanted = false;
  /** By flow (two for each slot, in and out): the epoch of its last offer, unless that was declined or the shortcut has ended. */
  readonly #epochs: (ShortcutEpoch | undefined)[] = [];
  /** By flow: batches left before the next offer. */
  #left = new Uint8Array(0);
  readonly #offers: ShortcutOffer[] = [];

  /** Makes room for `slots` slots of contexts. */
  reserve(slots: number): void {
    this.#left = grown(this.#left, new Uint8Array(2 * slots));
  }

  /** A slot has a new context. */
  begin(context: number): void {
    this.#left.fill(FIRST_BATCHES, 2 * context, 2 * context + 2);
  }

  /** The machine has handled a batch of a context, either into a tunnel (out) or from it. */
  noteBatch(tunnel: ShortcutTunnel, context: number, isOut: boolean): void {
    if (!this.isWanted) return;
    const flow = flowOf(context, isOut);
    if (this.#epochs[flow] === tunnel.epoch || --this.#left[flow] > 0) return;
    this.#left[flow] = FIRST_BATCHES;
    this.#epochs[flow] = tunnel.epoch;
    this.#offers.push({ epoch: tunnel.epoch, isOut, context });
  }

  /** The next offer that is still valid. */
  takeOffer(): ShortcutOffer | undefined {
    for (let offer = this.#offers.pop(); offer !== undefined; offer = this.#offers.pop()) {
      const { epoch, isOut, context } = offer;
      if (epoch === epoch.tunnel.epoch && epoch === this.#epochs[flowOf(context, isOut)]) return offer;
    }
    return undefined;
  }

  /** The host could not use an offer. */
  decline(offer: ShortcutOffer): void {
    this.handleEnded(offer);
    this.#left[flowOf(offer.context, offer.isOut)] = LATER_BATCHES;
  }

  /** Native I/O has ended a shortcut, for example because it was idle. */
  handleEnded({ epoch, isOut, context }: ShortcutOffer): void {
    const flow = flowOf(context, isOut);
    if (this.#epochs[flow] === epoch) this.#epochs[flow] = undefined;
  }

  /** A context has changed, so its shortcuts end, and with them all others of the same tunnel. */
  endOf(context: number): void {
    this.#endFlow(2 * context);
    this.#endFlow(2 * context + 1);
  }

  #endFlow(flow: number): void {
    const epoch = this.#epochs[flow];
    if (epoch === undefined) return;
    this.#epochs[flow] = undefined;
    if (epoch.tunnel.epoch === epoch) epoch.tunnel.endShortcuts();
  }
}

function flowOf(context: number, isOut: boolean): number {
  return isOut ? 2 * context + 1 : 2 * context;
}
