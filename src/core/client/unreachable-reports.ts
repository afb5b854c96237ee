import type { UnreachableKind } from "../../wire/capsule.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import type { Counters } from "../counters.ts";
import type { Fifo } from "../fifo.ts";
import { TokenBucket } from "../token-bucket.ts";
import type { ClientOutput } from "./client-parts.ts";

const PER_SECOND = 200;

/** Reports to the host that remote addresses are unreachable, each at most once until the host has polled that. */
export class UnreachableReports {
  readonly #counters: Counters;
  readonly #outputs: Fifo<ClientOutput>;
  readonly #limit = new TokenBucket(PER_SECOND);
  /** Addresses of contexts in outputs that the host has not polled yet, each with its association. */
  readonly #untold = new Map<AddressBytes, number>();

  constructor(counters: Counters, outputs: Fifo<ClientOutput>) {
    this.#counters = counters;
    this.#outputs = outputs;
  }

  report(now: number, association: number, remote: AddressBytes, reason: UnreachableKind, mtu: number): void {
    if (this.#untold.has(remote)) return;
    if (!this.#limit.take(now)) {
      this.#counters.unreachable.limited++;
      return;
    }
    this.#counters.unreachable[reason]++;
    this.#untold.set(remote, association);
    this.#outputs.push({ kind: "unreachable", association, remote, reason, mtu });
  }

  /** The host polls such an output. @returns false if it has been withdrawn */
  take(remote: AddressBytes): boolean {
    return this.#untold.delete(remote);
  }

  /** Withdraws those of an association that ends: the host would poll them when the slot may already belong to another one. */
  withdraw(association: number): void {
    for (const [remote, reported] of this.#untold) if (reported === association) this.#untold.delete(remote);
  }
}
