import * as z from "zod";
import type { OptionField } from "../../host/options/fields.ts";

/** How often the log has what happened since. */
export const STATS_INTERVAL_FIELD: OptionField = {
  schema: z.int().min(1).max(86_400).optional(),
  expects: "an integer from 1 to 86400",
  flag: "stats-interval",
  isNumber: true,
};
