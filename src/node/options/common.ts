import * as z from "zod";
import type { IoKind } from "../../host/io/io.ts";
import type { LatencyClass } from "../../wire/latency-class.ts";
import { LATENCY_CLASSES } from "../../wire/latency-class.ts";
import type { OptionField } from "./fields.ts";
import { integer } from "./fields.ts";

export const MAX_PATH_PREFIX = 1_000;
const MIN_PSK_BYTES = 16;

/** Options of both ends. */
export interface CommonOptions {
  /** Pre-shared key, the same at both ends; at least 16 bytes. Default: none. */
  readonly psk?: Uint8Array | undefined;
  /**
   * Datagrams that were held up longer are dropped: in a send queue, or on their way behind a lost segment, beyond TCP's repairs of
   * it. 1 to 60,000 ms. Default 100.
   */
  readonly ageBudgetMs?: number | undefined;
  /**
   * Bound in bytes of what waits to be sent, on a lane or in a session with receipts. Past it, the association that has most waiting loses its oldest datagram.
   * 128 KiB to 1 GiB. Default 1 MiB.
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
   * `interactive`: after datagrams the thread polls for some tens of microseconds before it sleeps, which saves it the time
   * to wake up and costs CPU. `bulk`: sockets are read at most once a millisecond or so, which saves CPU and costs that delay.
   * Native I/O on Linux only. Default balanced: neither.
   */
  readonly latency?: LatencyClass | undefined;
  /** True if listening on `[::]` excludes IPv4. Default false: `[::]` means every address of both families. */
  readonly ipv6Only?: boolean | undefined;
  /**
   * Threads, including the caller's. Each has its own sessions, and the bounds below apply to each. Native I/O only. 1 to
   * 256. Default 1; for the program udp-server one per core.
   */
  readonly workers?: number | undefined;
}

export type Filled<Options, Absent extends keyof Options> = Readonly<Required<Omit<Options, Absent>>>;

export const COMMON_FIELDS = {
  psk: {
    schema: z
      .instanceof(Uint8Array)
      .refine((key) => key.length >= MIN_PSK_BYTES)
      .optional(),
    expects: `a key of at least ${MIN_PSK_BYTES} bytes`,
    flag: "psk-file",
    value: "FILE",
    help: "file with the pre-shared key, at least 16 bytes, the same at both ends",
    isSecretFile: true,
  },
  ageBudgetMs: integer(
    "age-budget-ms",
    "MS",
    "drop datagrams that were held up longer, in milliseconds",
    1,
    60_000,
    100,
  ),
  queueBytes: integer(
    "queue-bytes",
    "N",
    "size limit in bytes of what waits to be sent, on a lane or in a session with receipts",
    131_072,
    2 ** 30,
    1_048_576,
  ),
  heartbeatMs: integer("heartbeat-ms", "MS", "time between heartbeats", 100, 60_000, 5_000),
  io: {
    schema: z.enum(["native", "plain"]).optional(),
    expects: "native or plain",
    flag: "io",
    value: "KIND",
    help: "native (batched) or plain (default: native if its module was built)",
  },
  latency: {
    schema: z.enum(LATENCY_CLASSES).default("balanced"),
    expects: "interactive, balanced or bulk",
    flag: "latency",
    value: "CLASS",
    help: "interactive (polls before it sleeps), balanced (default) or bulk (waits up to 1 ms to fill a batch)",
  },
  ipv6Only: {
    schema: z.boolean().default(false),
    expects: "true or false",
    flag: "ipv6-only",
    help: "listening on [::] excludes IPv4",
  },
  workers: {
    schema: z.int().min(1).max(256).default(1),
    expects: "an integer from 1 to 256",
    flag: "workers",
    value: "N",
    help: "threads, with native I/O (default: udp-server one per core, udp-local 1)",
    isNumber: true,
  },
} satisfies Record<keyof CommonOptions, OptionField>;
