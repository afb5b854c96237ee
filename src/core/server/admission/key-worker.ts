import type { NamedKey } from "../../keys/named-key.ts";

/** Where a session may run. */
interface Placement {
  readonly worker: { readonly index: number; readonly count: number } | undefined;
  readonly webSocketPath?: string | undefined;
}

/** The worker that serves all sessions of a key, because only one worker can count for limits over all of them; undefined if any may. */
export function workerOfKey(
  { worker, webSocketPath }: Placement,
  holder: NamedKey | undefined,
): number | undefined {
  if (worker === undefined || holder?.isShared !== true) return undefined;
  // Sessions in WebSockets are always in worker 0.
  return webSocketPath === undefined ? numberOf(holder.name) % worker.count : 0;
}

/** Whether a session of a key began here before its key belonged to another worker, as when the key had no limits yet. */
export function isMisplaced(placement: Placement, holder: NamedKey | undefined): boolean {
  const worker = workerOfKey(placement, holder);
  return worker !== undefined && worker !== placement.worker!.index;
}

/** A hash of a name (FNV-1a) that is the same in every process. */
function numberOf(name: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}
