import { lookup } from "node:dns/promises";
import { isIP } from "node:net";

/** RFC 8305 §5: an attempt has so long before the next one begins beside it. */
const ATTEMPT_DELAY_MS = 250;
/** Addresses of one name that are tried. */
const MAX_ADDRESSES = 16;

/**
 * Begins to connect to one address. `onDone` gets the connection, or the reason why there is none: once, later, and not
 * after the function that is returned, which gives the attempt up and frees its descriptor at once.
 *
 * @throws Error when the attempt fails at once
 */
export type BeginAttempt<T extends object> = (
  address: string,
  onDone: (result: T | string) => void,
) => () => void;

/**
 * The addresses of a host in the order in which they are tried: the system's, with the families alternating (RFC 8305
 * §4).
 *
 * @throws Error when the name cannot be resolved, or is not by the time that `signal` aborts
 */
export async function resolveHost(host: string, signal: AbortSignal): Promise<string[]> {
  if (isIP(host) !== 0) return [host];
  const found = await new Promise<string[]>((done, failed) => {
    const giveUp = () => failed(new Error("its name is not resolved"));
    if (signal.aborted) giveUp();
    signal.addEventListener("abort", giveUp, { once: true });
    lookup(host, { all: true, verbatim: true })
      .then((records) => done(records.map(({ address }) => address)), failed)
      .finally(() => signal.removeEventListener("abort", giveUp));
  });
  return interleaveFamilies(found).slice(0, MAX_ADDRESSES);
}

/** Alternates the families, beginning with that of the first address; each address once. */
export function interleaveFamilies(addresses: readonly string[]): string[] {
  const unique = [...new Set(addresses)];
  const first = unique.filter((address) => isIP(address) === isIP(unique[0]));
  const second = unique.filter((address) => isIP(address) !== isIP(unique[0]));
  const order: string[] = [];
  for (let i = 0; i < Math.max(first.length, second.length); i++) {
    order.push(...first.slice(i, i + 1), ...second.slice(i, i + 1));
  }
  return order;
}

/**
 * Connects to the address that answers first (RFC 8305 §5). The next attempt begins when the last one fails, and 250 ms
 * after it; once one has succeeded the others are given up, as all are when `signal` aborts.
 *
 * @throws Error that names each address that was tried, if there are several, and why it was not the one
 */
export function connectFirst<T extends object>(
  addresses: readonly string[],
  begin: BeginAttempt<T>,
  signal: AbortSignal,
): Promise<T> {
  return new Promise((done, failed) => {
    /** Of the attempts that are under way: how to give them up. */
    const pending = new Map<string, () => void>();
    const reasons = new Map<string, string>();
    const waiting = addresses.values();
    let timer: NodeJS.Timeout | undefined;
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", fail);
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
      clearTimeout(timer);
      for (let next = waiting.next(); !next.done; next = waiting.next()) {
        if (tryAddress(next.value)) {
          timer = setTimeout(beginNext, ATTEMPT_DELAY_MS);
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
    signal.addEventListener("abort", fail);
    if (signal.aborted) fail();
    else beginNext();
  });
}
