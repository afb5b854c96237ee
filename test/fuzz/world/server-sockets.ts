import type { TunnelServer } from "../../../src/core/server/server.ts";
import { check } from "../failure.ts";
import { flowOf } from "../flow-source.ts";
import type { Ledger } from "../ledger.ts";

const MOST_REPLIES = 64;

/** A datagram that a target will answer. */
interface Reply {
  readonly association: number;
  readonly generation: number;
  readonly address: number;
}

/** The sockets of a server, as its host has them: an association gets one when it sends its first datagram. */
export class ServerSockets {
  /** By association: its flow once its socket is open, otherwise -1; and how often the slot was used before. */
  readonly flows: number[] = [];
  readonly generations: number[] = [];
  /** Associations with a socket, in no order. */
  readonly open: number[] = [];
  /** By flow: the association that sent its last datagram. */
  readonly associationOf: number[] = [];
  readonly replies: Reply[] = [];
  /** Datagrams that have left since the server started. */
  sent = 0;

  /** Sends the datagrams that the server puts out. */
  send(server: TunnelServer, ledger: Ledger): void {
    const { outgoing, contexts } = server;
    for (let row = 0; row < outgoing.count; row++) {
      const association = outgoing.association[row];
      const context = outgoing.context[row];
      const target = contexts.target[context];
      check(target !== undefined, "a datagram goes to a context that has ended");
      check(contexts.association[context] === association, "a row names another's context");
      this.sent++;
      const flow = ledger.arriveUp(outgoing.data, outgoing.offset[row], outgoing.length[row], target);
      const source = server.source(association);
      const before = this.flows[association] ?? -1;
      check(
        (before < 0 || before === flow) && source !== undefined && flowOf(source) === flow,
        "a datagram leaves by another's socket",
        () => `flow ${flow} by the socket of flow ${before}`,
      );
      if (before < 0) {
        this.flows[association] = flow;
        this.open.push(association);
      }
      this.associationOf[flow] = association;
      if (this.replies.length >= MOST_REPLIES) this.replies.shift();
      const generation = this.generations[association] ?? 0;
      this.replies.push({ association, generation, address: ledger.indexOf(target) });
    }
  }

  /** The association has ended, so its socket is closed. */
  release(association: number): void {
    this.generations[association] = (this.generations[association] ?? 0) + 1;
    const flow = this.flows[association] ?? -1;
    this.flows[association] = -1;
    if (flow < 0) return;
    if (this.associationOf[flow] === association) this.associationOf[flow] = -1;
    this.open.splice(this.open.indexOf(association), 1);
  }

  /** The server has ended, and with it all sockets. */
  clear(): void {
    this.flows.length = 0;
    this.generations.length = 0;
    this.open.length = 0;
    this.associationOf.length = 0;
    this.replies.length = 0;
  }
}
