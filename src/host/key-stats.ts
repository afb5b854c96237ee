import type { NamedKey } from "../core/keys/named-key.ts";
import type { KeyStats } from "./tunnel-stats.ts";

/** Keys that are listed by name. There may be thousands, and each would be several series in a database of metrics. */
const MAX_LISTED_KEYS = 256;
/** Not a possible name. */
const OTHERS = "(others)";

/** What keys have and had. @param keys  in the order of their file */
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
