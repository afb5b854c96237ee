import type { LatencyClass } from "../../wire/latency-class.ts";
import type { IoKind } from "../io/io.ts";

/** Options of a tap, which writes the datagrams inside the tunnel into a file. */
export interface TapOptions {
  /** Path of a pcapng file, which will contain payloads. Default: none. */
  readonly tap?: string | undefined;
  /** How many files to keep; older ones have a number before the last dot of their name. 1 to 100. Default 2. */
  readonly tapFiles?: number | undefined;
  /** Size in bytes at which the next file begins. 1 MiB to 1 TiB. Default 100 MiB. */
  readonly tapFileBytes?: number | undefined;
  /** Most bytes of a payload that are kept. 0 to 65,535, the default. */
  readonly tapPayloadBytes?: number | undefined;
  /** Remote addresses, in the form of `allow` of udp-server; `*` stands for all. Default: all. */
  readonly tapFilter?: readonly string[] | undefined;
  /** `one` interface for all datagrams, or one for each `association`. Default one. */
  readonly tapInterfaces?: "one" | "association" | undefined;
}

/** Options of both ends. */
export interface CommonOptions extends TapOptions {
  /** Pre-shared key, the same at both ends; at least 16 bytes. Default: none. */
  readonly psk?: Uint8Array | undefined;
  /**
   * Datagrams that were held up longer are dropped, whether in a send queue or behind a lost segment (beyond the time that TCP takes
   * to repair it). 1 to 60,000 ms. Default 100.
   */
  readonly ageBudgetMs?: number | undefined;
  /**
   * Limit of bytes that wait to be sent, on a lane or in a session with receipts. Beyond it, the association with the most of them loses
   * its oldest datagram. 128 KiB to 1 GiB. Default 1 MiB.
   */
  readonly queueBytes?: number | undefined;
  /** Time between heartbeats; a lane is dead after 3 without an answer. 100 to 60,000 ms. Default 5,000. */
  readonly heartbeatMs?: number | undefined;
  /**
   * `native`: batched, by the module in native/, which is then required. `plain`: node:dgram and node:net. Default: the
   * environment variable UNDERPASS_IO, else native if the module can be loaded.
   */
  readonly io?: IoKind | undefined;
  /**
   * `interactive`: after datagrams the thread polls for some tens of microseconds before it sleeps, which saves the time to wake up
   * but costs CPU. `bulk`: sockets are read about once a millisecond, which saves CPU but adds that delay. Native I/O on Linux only.
   * Default balanced: neither.
   */
  readonly latency?: LatencyClass | undefined;
  /** True if listening on `[::]` excludes IPv4. Default false: `[::]` means every address of both families. */
  readonly ipv6Only?: boolean | undefined;
  /**
   * Threads, including the caller's. Each has its own sessions, and the bounds below apply to each. Native I/O only. 1 to
   * 256. Default 1; one per core in the program udp-server.
   */
  readonly workers?: number | undefined;
}

export type Filled<Options, Absent extends keyof Options> = Readonly<Required<Omit<Options, Absent>>>;
