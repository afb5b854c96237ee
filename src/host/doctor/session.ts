import type { UnreachableKind } from "../../wire/capsule.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { copyOf } from "../../wire/socket-address.ts";
import { silentLogger } from "../log.ts";
import { wait } from "../loop.ts";
import type { Relay } from "../udp/fixed-forward.ts";
import { UdpLocalHost } from "../udp-local.ts";
import type { Examined } from "./examined.ts";
import { openChain } from "./examined.ts";

/** What an association in the tunnel received. */
export type Heard =
  | {
      readonly kind: "datagram";
      readonly bytes: Uint8Array;
      readonly from: AddressBytes;
      readonly at: number;
    }
  | {
      readonly kind: "unreachable";
      readonly reason: UnreachableKind;
      readonly mtu: number;
      readonly at: number;
    };

const NO_SOURCE = undefined;

/** The loss of a connection that was up. */
export interface Loss {
  readonly error: Error | undefined;
  /** By the clock of the system. */
  readonly at: number;
  /** How long the session had been up. */
  readonly upMs: number;
}

/** A session by one way, like udp-local's, that listens nowhere. */
export class Session {
  readonly host: UdpLocalHost;
  /** The reasons why it has no lane, or has lost one. */
  readonly errors: Error[] = [];
  /** True for a session of our protocol, which continues on other connections; false for a dialect or a MASQUE proxy. */
  readonly isResumable: boolean;
  /** Each loss of its last lane or, if it is not resumable, of a connection. */
  readonly breaks: Loss[] = [];
  /** Each loss of a lane while it had others. */
  readonly lostLanes: Loss[] = [];
  readonly #examined: Examined;
  #upAt = 0;
  #lanesUp = 0;
  #errorsSeen = 0;
  readonly #changed = new Set<() => void>();

  /** @param dialect  of the server, instead of the options' dialect */
  constructor(examined: Examined, dialect = examined.options.dialect) {
    this.#examined = examined;
    const { options, settings, system } = examined;
    const { masque } = options;
    // Tried only if udp-server did not answer.
    const isTried = dialect !== options.dialect;
    this.host = new UdpLocalHost(
      {
        ...options,
        listen: false,
        forwards: [],
        tap: undefined,
        dialect,
        ...(isTried ? { psk: undefined } : {}),
      },
      silentLogger,
      system,
      {
        handshakeMs: settings.testTimeoutMs,
        ...(masque === undefined ? { carrier: openChain(examined) } : {}),
      },
    );
    this.isResumable = dialect === undefined && masque === undefined;
    const { events } = this.host;
    events.on("error", (error) => {
      this.errors.push(error);
      if (dialect !== undefined) this.breaks.push(this.#loss(error));
      this.#change();
    });
    for (const kind of ["session-up", "session-resumed", "session-renewed"] as const) {
      events.on(kind, () => {
        this.#upAt = system.now();
        this.#lanesUp = 0;
        this.#change();
      });
    }
    events.on("session-down", (error) => {
      this.breaks.push(this.#loss(error));
      this.#lanesUp = 0;
      this.#change();
    });
  }

  #loss(error: Error | undefined): Loss {
    const at = this.#examined.system.now();
    return { error, at, upMs: at - this.#upAt };
  }

  /** Waits until the session is up, or something has failed. */
  async open(): Promise<boolean> {
    await this.host.listen();
    await this.until(
      () => this.host.core.isUp || this.errors.length > 0,
      2 * this.#examined.settings.testTimeoutMs,
    );
    return this.host.core.isUp;
  }

  /**
   * Resolves with whether `isDone` was true in time. It is asked after each change and every 10 ms. The break of a resumable
   * session ends the wait.
   */
  async until(isDone: () => boolean, timeoutMs: number): Promise<boolean> {
    const { system } = this.#examined;
    const end = system.now() + timeoutMs;
    const breaks = this.breaks.length;
    for (;;) {
      this.#noteLanes();
      if (isDone()) return true;
      if (system.now() >= end || (this.isResumable && this.breaks.length > breaks)) return false;
      await new Promise<void>((done) => {
        const changed = () => {
          timer.cancel();
          this.#changed.delete(changed);
          done();
        };
        const timer = system.after(10, changed);
        this.#changed.add(changed);
      });
    }
  }

  async sleep(ms: number): Promise<void> {
    await wait(this.#examined.system, ms);
    this.#noteLanes();
  }

  /** A lane that ends without an error was no longer needed. */
  #noteLanes(): void {
    const { lanesUp } = this.host.core;
    const hasFailed = this.errors.length > this.#errorsSeen;
    if (this.isResumable && hasFailed && lanesUp > 0 && lanesUp < this.#lanesUp) {
      this.lostLanes.push(this.#loss(this.errors.at(-1)));
    }
    this.#errorsSeen = this.errors.length;
    this.#lanesUp = lanesUp;
  }

  #change(): void {
    for (const changed of [...this.#changed]) changed();
  }

  /** Opens an association. */
  associate(): Association {
    return new Association(
      this.host,
      () => this.#examined.system.now(),
      () => this.#change(),
    );
  }

  close(): Promise<void> {
    return this.host.close();
  }
}

/** A UDP endpoint in the tunnel, whose datagrams come from and go to this process. */
export class Association implements Relay {
  readonly socket = { close: () => {} };
  readonly heard: Heard[] = [];
  readonly #host: UdpLocalHost;
  readonly #now: () => number;
  readonly #onHeard: () => void;
  #index: number;

  constructor(host: UdpLocalHost, now: () => number, onHeard: () => void) {
    this.#host = host;
    this.#now = now;
    this.#onHeard = onHeard;
    this.#index = host.core.openAssociation(host.turn.now(), NO_SOURCE, false);
    host.register(this.#index, this);
    host.turn.schedule();
  }

  send(target: AddressBytes, bytes: Uint8Array): void {
    const { core, turn } = this.#host;
    if (this.#index < 0) return;
    core.handleDatagram(turn.now(), this.#index, bytes, 0, bytes.length, target, 0, target.length);
    turn.schedule();
  }

  deliver(
    _association: number,
    context: number,
    data: Uint8Array,
    offsets: Int32Array,
    lengths: Int32Array,
    first: number,
    end: number,
  ): number {
    const from = this.#host.core.contexts.address[context];
    if (from === undefined) return end - first;
    const at = this.#now();
    for (let i = first; i < end; i++) {
      this.heard.push({ kind: "datagram", bytes: copyOf(data, offsets[i], lengths[i]), from, at });
    }
    this.#onHeard();
    return 0;
  }

  refuse(_association: number, _remote: AddressBytes, reason: UnreachableKind, mtu: number): void {
    this.heard.push({ kind: "unreachable", reason, mtu, at: this.#now() });
    this.#onHeard();
  }

  forget(): void {
    this.#index = -1;
  }

  close(): void {
    if (this.#index < 0) return;
    const { core, turn } = this.#host;
    this.#host.register(this.#index, undefined);
    core.closeAssociation(turn.now(), this.#index);
    this.#index = -1;
    turn.schedule();
  }
}
