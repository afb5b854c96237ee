import { ReceivedDatagrams, ROW_INTS } from "../../../src/core/session/received-datagrams.ts";
import type { UdpIo, UdpSocketOptions } from "../../../src/host/io/udp-io.ts";
import { Remote } from "../../../src/host/io/udp-io.ts";
import { ListenedStream } from "../../../src/host/stream/byte-stream.ts";
import type { ListenOptions, Tcp } from "../../../src/host/stream/tcp.ts";
import type { System } from "../../../src/host/system.ts";
import { formatAddress, makeAddress } from "../../../src/wire/socket-address.ts";
import { bareSystem } from "./bare-system.ts";

const NO_BYTES = new Uint8Array(0);

/** A machine with sockets, connections and a clock in memory. It uses nothing but ECMAScript. */
export class MemoryWorld {
  #now = 1_000;
  readonly #turns: (() => void)[] = [];
  readonly #timers = new Set<{ readonly at: number; readonly callback: () => void }>();
  /** By `IP:PORT`. */
  readonly #sockets = new Map<string, UdpSocketOptions>();
  readonly #listeners = new Map<string, ListenOptions>();
  #nextPort = 40_000;
  #random = 7;

  /** One turn of the loop; time advances when it is empty. */
  step(): void {
    const turns = this.#turns.splice(0);
    for (const turn of turns) turn();
    if (turns.length > 0) return;
    this.#now += 1;
    for (const timer of this.#timers) {
      if (timer.at > this.#now || !this.#timers.delete(timer)) continue;
      timer.callback();
    }
  }

  /** Reports an error of every listener. */
  reportListenerErrors(isFinal: boolean): void {
    for (const { onError } of this.#listeners.values()) onError(new Error("a fault"), isFinal);
  }

  readonly nextTurn = (callback: () => void): void => void this.#turns.push(callback);

  readonly udp: UdpIo = {
    kind: "plain",
    open: (options) => this.#openUdp(options),
    flush: () => 0,
    afterTurn: this.nextTurn,
  };

  readonly tcp: Tcp = {
    connect: (endpoint, _, onDone) => {
      let isCancelled = false;
      this.nextTurn(() => {
        if (isCancelled) return;
        const { host, port } = endpoint as { host: string; port: number };
        const listener = this.#listeners.get(`${host}:${port}`);
        if (listener === undefined) {
          onDone("connection refused");
          return;
        }
        const [near, far] = [new MemoryStream(this), new MemoryStream(this)];
        near.other = far;
        far.other = near;
        listener.onStream(far);
        onDone(near);
      });
      return () => {
        isCancelled = true;
      };
    },
    listen: async (endpoint, options) => {
      const { host, port } = endpoint as { host: string; port: number };
      const address = `${host}:${port}`;
      this.#listeners.set(address, options);
      return { address, port, close: async () => void this.#listeners.delete(address) };
    },
    listenOn: () => Promise.reject(new Error("there are no descriptors in memory")),
  };

  readonly system: System = {
    ...bareSystem(() => this.#nextRandom()),
    now: () => this.#now,
    unixMs: () => this.#now,
    after: (delayMs, callback) => {
      const timer = { at: this.#now + delayMs, callback };
      this.#timers.add(timer);
      return { cancel: () => void this.#timers.delete(timer) };
    },
    nextTurn: this.nextTurn,
    io: { udp: this.udp, tcp: this.tcp, native: undefined, latency: "balanced" },
  };

  #nextRandom(): number {
    this.#random = (this.#random * 31 + 7) % 251;
    return this.#random;
  }

  #openUdp(options: UdpSocketOptions) {
    const host = options.host ?? "198.51.100.1";
    const port = options.port === 0 ? this.#nextPort++ : options.port;
    const own = makeAddress(host, port)!;
    this.#sockets.set(formatAddress(own), options);
    const send = (
      header: Uint8Array | undefined,
      data: Uint8Array,
      offset: number,
      length: number,
      to: Remote,
    ) => {
      const sent = Uint8Array.of(...(header ?? NO_BYTES), ...data.subarray(offset, offset + length));
      this.nextTurn(() => {
        const received = new ReceivedDatagrams(NO_BYTES, NO_BYTES, new Int32Array(ROW_INTS));
        received.setOnly(sent, 0, sent.length, own, 0);
        this.#sockets.get(formatAddress(to.address))?.onDatagrams(received, 0, 1);
      });
      return true;
    };
    return {
      port,
      send,
      sendAll: (
        header: Uint8Array | undefined,
        data: Uint8Array,
        offsets: Int32Array,
        lengths: Int32Array,
        first: number,
        end: number,
        to: Remote,
      ) => {
        for (let i = first; i < end; i++) send(header, data, offsets[i], lengths[i], to);
        return 0;
      },
      setLatency() {},
      setDscp() {},
      close: () => void this.#sockets.delete(formatAddress(own)),
    };
  }
}

/** One end of a connection; its bytes reach the other end in the next turn. */
class MemoryStream extends ListenedStream {
  readonly reusesMemory = false;
  readonly localIp = "127.0.0.1";
  readonly remoteIp = "127.0.0.1";
  readonly remotePort = 1;
  readonly #world: MemoryWorld;
  other!: MemoryStream;
  #state: "open" | "ended" | "closed" = "open";

  constructor(world: MemoryWorld) {
    super();
    this.#world = world;
  }

  get isClosed(): boolean {
    return this.#state !== "open";
  }

  write(bytes: Uint8Array): boolean {
    const copy = bytes.slice();
    if (this.#state === "open") this.#world.nextTurn(() => this.other.#receive(copy));
    return true;
  }

  end(): void {
    if (this.#state !== "open") return;
    this.#state = "ended";
    this.#world.nextTurn(() => this.other.#receiveEnd());
    if (this.hasPeerEnded) this.#close(undefined);
  }

  destroy(): void {
    if (this.#state === "closed") return;
    this.#world.nextTurn(() => this.other.#close(new Error("connection reset")));
    this.#close(undefined);
  }

  reset(): void {
    this.destroy();
  }

  tune(): void {}

  protected override setReading(): void {}

  #receive(bytes: Uint8Array): void {
    if (this.#state !== "closed") this.handleBytes(bytes, bytes.length);
  }

  #receiveEnd(): void {
    if (this.#state === "closed") return;
    this.handleEnd();
    if (this.#state === "ended") this.#close(undefined);
  }

  #close(error: Error | undefined): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.#world.nextTurn(() => this.handleClose(error));
  }
}

/** An address for {@link UdpSocket.send}. */
export function remoteOf(host: string, port: number): Remote {
  return new Remote(makeAddress(host, port)!);
}
