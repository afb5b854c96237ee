import type { AssociationClient } from "../../core/client/association-client.ts";
import type { TunnelServer } from "../../core/server/server.ts";
import type { DatagramBatch } from "../../core/session/datagram-batch.ts";
import type { DatagramTap, TapReason } from "../../core/tap.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";

type AddressOf = (index: number) => AddressBytes | undefined;

/** Passes the datagrams of a batch out of the tunnel to a tap. */
export class BatchRecords {
  readonly #batch: DatagramBatch;
  readonly #localOf: AddressOf;
  readonly #remoteOf: AddressOf;

  /**
   * @param localOf   returns the application's address of an association
   * @param remoteOf  returns the target's address of a context
   */
  constructor(batch: DatagramBatch, localOf: AddressOf, remoteOf: AddressOf) {
    this.#batch = batch;
    this.#localOf = localOf;
    this.#remoteOf = remoteOf;
  }

  static ofServer(core: TunnelServer): BatchRecords {
    return new BatchRecords(
      core.outgoing,
      (association) => core.source(association),
      (context) => core.contexts.target[context],
    );
  }

  static ofClient(core: AssociationClient): BatchRecords {
    return new BatchRecords(
      core.received,
      (association) => core.sourceOf(association),
      (context) => core.contexts.address[context],
    );
  }

  /** Records all datagrams, as counted and not dropped. @param data  their payloads */
  recordAll(tap: DatagramTap, data: Uint8Array): void {
    for (let i = 0; i < this.#batch.count; i++) this.record(tap, undefined, data, i);
  }

  /** @param reason  undefined if the datagram was not dropped */
  record(tap: DatagramTap, reason: TapReason | undefined, data: Uint8Array, index: number): void {
    const { association, context, offset, length } = this.#batch;
    const local = this.#localOf(association[index]);
    const remote = this.#remoteOf(context[index]);
    tap.record(true, reason, association[index], local, remote, data, offset[index], length[index]);
  }
}
