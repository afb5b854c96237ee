import type { TunnelClient } from "../../../src/core/client/client.ts";
import { check } from "../failure.ts";
import type { Ledger } from "../ledger.ts";

/** The applications behind a client end: their associations, and the datagrams that arrive for them. */
export class Applications {
  readonly core: TunnelClient;
  /** By association: the flow that it carries, or -1. */
  readonly flows: number[] = [];
  /** Associations that are open, in no order. */
  readonly open: number[] = [];
  /** Datagrams that arrived. */
  rowsDown = 0;
  readonly #ledger: Ledger;

  constructor(core: TunnelClient, ledger: Ledger) {
    this.core = core;
    this.#ledger = ledger;
  }

  /** An association has been opened for a flow. */
  enter(association: number, flow: number): void {
    check(!this.isLive(association), "an association's slot stands for two");
    this.flows[association] = flow;
    this.open.push(association);
  }

  /** An association ends, and its flow with it. */
  forget(association: number): void {
    const at = this.open.indexOf(association);
    check(at >= 0, "a client ends an association that is not open", () => `${association}`);
    this.open[at] = this.open[this.open.length - 1];
    this.open.pop();
    this.#ledger.endFlow(this.flows[association]);
    this.flows[association] = -1;
  }

  forgetAll(): void {
    for (const association of this.open) this.#ledger.endFlow(this.flows[association]);
    this.open.length = 0;
  }

  /** Whether an association carries a flow that has not ended. */
  isLive(association: number): boolean {
    const flow = this.flows[association] ?? -1;
    return flow >= 0 && this.#ledger.isLive[flow];
  }

  /** Delivers the datagrams that the core puts out to the applications. */
  deliver(): void {
    const { received, contexts } = this.core;
    for (let row = 0; row < received.count; row++) {
      const association = received.association[row];
      const remote = contexts.address[received.context[row]];
      check(this.isLive(association), "a datagram comes for an association that has ended");
      check(remote !== undefined, "a datagram comes of a context that has ended");
      check(contexts.association[received.context[row]] === association, "a row names another's context");
      this.rowsDown++;
      const { data, offset, length } = received;
      this.#ledger.arriveDown(data, offset[row], length[row], remote, this.flows[association]);
    }
  }
}
