import { readFileSync } from "node:fs";

/** The number of descriptors that this process may have open; Infinity if unknown (on any system but Linux). */
export function descriptorLimit(): number {
  try {
    const row = /^Max open files\s+(\d+|unlimited)/m.exec(readFileSync("/proc/self/limits", "utf8"));
    const limit = Number(row?.[1]);
    return Number.isNaN(limit) ? Number.POSITIVE_INFINITY : limit;
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}
