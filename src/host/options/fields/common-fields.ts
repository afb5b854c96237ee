import * as z from "zod";
import { parseTargetRule } from "../../../core/target-rule.ts";
import { LATENCY_CLASSES } from "../../../wire/latency-class.ts";
import type { CommonOptions } from "../common.ts";
import type { OptionField } from "./fields.ts";
import { integer } from "./fields.ts";

export const MAX_PATH_PREFIX = 1_000;
export const MIN_PSK_BYTES = 16;

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
    "limit in bytes for datagrams that wait to be sent, on a lane or in a session with receipts",
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
    help: "threads, with native I/O (default: one per core in udp-server, 1 in udp-local)",
    isNumber: true,
  },
  tap: {
    schema: z.string().min(1).optional(),
    expects: "the path of a file",
    flag: "tap",
    value: "FILE",
    help: "write the datagrams inside the tunnel, with payloads, to a pcapng file for Wireshark",
    rebase: (path, inFolder) => inFolder(path),
  },
  tapFiles: integer("tap-files", "N", "how many files --tap keeps, including the current one", 1, 100, 2),
  tapFileBytes: integer(
    "tap-file-bytes",
    "N",
    "size in bytes at which --tap begins the next file",
    1_048_576,
    2 ** 40,
    104_857_600,
  ),
  tapPayloadBytes: integer(
    "tap-payload-bytes",
    "N",
    "most bytes of each payload that --tap keeps",
    0,
    65_535,
    65_535,
  ),
  tapFilter: {
    schema: z.array(z.string().refine((text) => parseTargetRule(text) !== undefined)).default([]),
    expects: "CIDR[:PORTS] or *[:PORTS], such as 192.0.2.0/24:53,1000-2000",
    flag: "tap-filter",
    value: "CIDR[:PORTS]",
    help: "--tap writes only datagrams to and from these targets, or *:PORTS (repeatable; default all)",
    isList: true,
  },
  tapInterfaces: {
    schema: z.enum(["one", "association"]).default("one"),
    expects: "one or association",
    flag: "tap-interfaces",
    value: "one|association",
    help: "--tap writes one interface (default), or one for each association",
  },
} satisfies Record<keyof CommonOptions, OptionField>;
