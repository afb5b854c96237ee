import type { PacketTap, TapReason } from "../../core/tap.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import type { TapWriter } from "./tap-writer.ts";

export interface HostTapOptions {
  /** True for a server, where datagrams out of the tunnel go to targets. */
  readonly isServer: boolean;
  /** True if another host with the same writer records the datagrams that are not dropped. */
  readonly hasOnlyDropped?: boolean;
  /** Returns the application's address if it knows it better than core, otherwise undefined. */
  readonly localOf?: (association: number) => AddressBytes | undefined;
}

/** The tap of one host. */
export class HostTap implements PacketTap {
  readonly writer: TapWriter;
  readonly #options: HostTapOptions;

  constructor(writer: TapWriter, options: HostTapOptions) {
    this.writer = writer;
    this.#options = options;
  }

  record(
    isIn: boolean,
    reason: TapReason | undefined,
    association: number,
    local: AddressBytes | undefined,
    remote: AddressBytes | undefined,
    data: Uint8Array,
    offset: number,
    length: number,
  ): void {
    const { isServer, hasOnlyDropped, localOf } = this.#options;
    if (reason === undefined && hasOnlyDropped) return;
    const source = (association < 0 ? undefined : localOf?.(association)) ?? local;
    const toRemote = isIn === isServer;
    this.writer.writeDatagram(isIn, toRemote, reason, association, source, remote, data, offset, length);
  }

  recordPacket(reason: TapReason, data: Uint8Array, start: number, end: number): void {
    this.writer.writePacket(reason, data, start, end);
  }
}
