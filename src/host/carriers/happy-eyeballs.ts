import { ipFamily } from "../addresses/endpoint.ts";
import type { Cancellation } from "../cancellation.ts";
import type { Loop, Timer } from "../loop.ts";
import type { System } from "../system.ts";

/** Time after which the next attempt starts in parallel (Connection Attempt Delay, RFC 8305 §5). */
const ATTEMPT_DELAY_MS = 250;
/** Limit of addresses that are tried for one name. */
const MAX_ADDRESSES = 16;

/**
 * Starts connecting to one address. `onDone` is called once, asynchronously, with the connection or with the reason for
 * its failure.
 *
 * @returns a function that cancels the attempt and closes its descriptor at once; `onDone` is not called after that
 * @throws Error when the attempt fails immediately
 */
export type BeginAttempt<T extends object> = (
  address: string,
  onDone: (result: T | string) => void,
) => () => void;

/**
 * The addresses of a host in the order in which to try them: the system's order, with families alternating (RFC 8305 §4).
 *
 * @throws Error when the name cannot be resolved, or it is cancelled first
 */
export async function resolveHost(
  system: Pick<System, "lookUp">,
  host: string,
  cancellation: Cancellation,
): Promise<readonly string[]> {
  if (ipFamily(host) !== undefined) return [host];
  const found = await new Promise<readonly string[]>((done, failed) => {
    const leave = cancellation.onCancel(() => failed(new Error("the name was not resolved")));
    system.lookUp(host).then(done, failed).finally(leave);
  });
  return interleaveFamilies(found).slice(0, MAX_ADDRESSES);
}

/** Alternates families, starting with that of the first address; drops duplicates. */
export function interleaveFamilies(addresses: readonly string[]): string[] {
  const unique = [...new Set(addresses)];
  const first = unique.filter((address) => ipFamily(address) === ipFamily(unique[0]));
  const second = unique.filter((address) => ipFamily(address) !== ipFamily(unique[0]));
  const order: string[] = [];
  for (let i = 0; i < Math.max(first.length, second.length); i++) {
    order.push(...first.slice(i, i + 1), ...second.slice(i, i + 1));
  }
  return order;
}

/**
 * Connects to the address that answers first (RFC 8305 §5). The next attempt starts when one fails, or after 250 ms. The first success
 * cancels the others; cancelling `cancellation` cancels all.
 *
 * @throws Error with the reason; for several addresses, with each address and its reason
 */
export function connectFirst<T extends object>(
  addresses: readonly string[],
  begin: BeginAttempt<T>,
  cancellation: Cancellation,
  loop: Loop,
): Promise<T> {
  return new Promise((done, failed) => {
    /** Cancels an attempt in progress, by its address. */
    const pending = new Map<string, () => void>();
    const reasons = new Map<string, string>();
    const waiting = addresses.values();
    let timer: Timer | undefined;
    const end = () => {
      timer?.cancel();
      leave();
      for (const giveUp of pending.values()) giveUp();
    };
    const fail = () => {
      end();
      const tried = addresses.filter((address) => pending.has(address) || reasons.has(address));
      const texts = tried.map((address) => {
        const reason = reasons.get(address) ?? "no answer";
        return addresses.length === 1 ? reason : `${address}: ${reason}`;
      });
      failed(new Error(texts.join("; ")));
    };
    const beginNext = () => {
      timer?.cancel();
      for (let next = waiting.next(); !next.done; next = waiting.next()) {
        if (tryAddress(next.value)) {
          timer = loop.after(ATTEMPT_DELAY_MS, beginNext);
          return;
        }
      }
      if (pending.size === 0) fail();
    };
    const tryAddress = (address: string): boolean => {
      try {
        const giveUp = begin(address, (result) => {
          pending.delete(address);
          if (typeof result === "string") {
            reasons.set(address, result);
            beginNext();
            return;
          }
          end();
          done(result);
        });
        pending.set(address, giveUp);
        return true;
      } catch (error) {
        reasons.set(address, (error as Error).message);
        return false;
      }
    };
    const leave = cancellation.onCancel(fail);
    // If it was cancelled before, nothing starts, and it fails at once.
    if (!cancellation.isCancelled) beginNext();
  });
}
