import type { NamedKey } from "../../core/keys/named-key.ts";
import type { KeyStats } from "./tunnel-stats.ts";

/** Limit of keys that are listed by name. There may be thousands, and each would add several series to a metrics database. */
const MAX_LISTED_KEYS = 256;
/** Not a possible name. */
const OTHERS = "(others)";

/** The current and past counts of keys. @param keys  in the order of their file */
export function keyStats(keys: Iterable<NamedKey>): KeyStats {
  const stats: Record<keyof KeyStats, Record<string, number>> = {
    ...{ sessions: {}, associations: {}, limited: {} },
    ...{ datagramsIn: {}, datagramsOut: {}, bytesIn: {}, bytesOut: {} },
  };
  let listed = 0;
  for (const { name, sessions, associations, counts } of keys) {
    const values = { ...counts, sessions, associations };
    const label = listed++ < MAX_LISTED_KEYS ? name : OTHERS;
    for (const [stat, value] of Object.entries(values)) {
      const row = stats[stat as keyof KeyStats];
      row[label] = (row[label] ?? 0) + value;
    }
  }
  return stats;
}
