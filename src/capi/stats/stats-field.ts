import * as z from "zod";
import type { OptionField } from "../../host/options/fields/fields.ts";

/** How often to log what happened since the last time. */
export const STATS_INTERVAL_FIELD: OptionField = {
  schema: z.int().min(1).max(86_400).optional(),
  expects: "an integer from 1 to 86400",
  flag: "stats-interval",
  isNumber: true,
};
