import { fstatSync } from "node:fs";
import * as z from "zod";
import type { OptionFields } from "../host/options/fields/fields.ts";
import { ADMIN_FIELDS } from "./admin/admin-options.ts";

const LOG_LEVELS = ["debug", "info", "warn", "error", "silent"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** Options that all programs have and the library lacks. */
export const HOST_FIELDS: OptionFields = {
  config: {
    schema: z.string().optional(),
    expects: "a path",
    flag: "config",
    value: "FILE.json",
    help: "JSON file with these options by name, comments allowed; flags override it",
  },
  logLevel: {
    schema: z.enum(LOG_LEVELS).default("info"),
    expects: LOG_LEVELS.join(", "),
    flag: "log-level",
    value: "LEVEL",
    help: `${LOG_LEVELS.join(", ")} (default info)`,
  },
  logFormat: {
    schema: z.enum(["pretty", "json"]).default("pretty"),
    expects: "pretty or json",
    flag: "log-format",
    value: "FORMAT",
    help: "pretty or json, on stderr (default pretty)",
  },
  readyFd: {
    schema: z
      .int()
      .min(1)
      .refine((fd) => isOpen(fd))
      .optional(),
    expects: "the number of an open descriptor",
    flag: "ready-fd",
    value: "N",
    help: "descriptor that gets the ready line in JSON and is then closed",
    isNumber: true,
  },
  ...ADMIN_FIELDS,
  statsIntervalS: {
    schema: z.int().min(1).max(86_400).optional(),
    expects: "an integer from 1 to 86400",
    flag: "stats-interval",
    value: "S",
    help: "interval for logging rates, round-trip time and drops",
    isNumber: true,
  },
};

function isOpen(fd: number): boolean {
  try {
    fstatSync(fd);
    return true;
  } catch {
    return false;
  }
}
