import type { UnreachableKind } from "../../wire/capsule.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import type { PathCounts } from "../stats/path-counts.ts";
import type { UdpPath, UdpPathHost } from "../udp-paths/udp-path.ts";
import { OutgoingDatagram } from "../udp-paths/udp-path.ts";
import type { EgressHost, ServerEgress } from "./server-egress.ts";

/** Sends the datagrams of a server's associations through a {@link UdpPath}: for any `--egress` except sockets. */
export class PathEgress implements ServerEgress, UdpPathHost {
  readonly ready: Promise<void>;
  readonly #host: EgressHost;
  readonly #datagram = new OutgoingDatagram();
  /** Undefined until the path is open. */
  #path: UdpPath | undefined;
  /** Whether the path knows an association. */
  readonly #isOpen: boolean[] = [];

  /** @param openPath  opens the path, which delivers to the argument */
  constructor(host: EgressHost, openPath: (host: UdpPathHost) => Promise<UdpPath | undefined>) {
    this.#host = host;
    this.ready = openPath(this).then((path) => {
      this.#path = path;
    });
    // Further threads do not wait for the path.
    this.ready.catch((error: Error) => host.log.error({ error: error.message }, "cannot open the egress"));
  }

  send(data: Uint8Array): void {
    const { core } = this.#host;
    const { outgoing, contexts, counters } = core;
    const { count, association, context, offset, length } = outgoing;
    const { tap } = counters;
    const path = this.#path;
    const datagram = this.#datagram;
    if (path === undefined) {
      counters.drops.send_error += count;
      if (tap === undefined) return;
      for (let i = 0; i < count; i++) this.#host.records.record(tap, "send_error", data, i);
      return;
    }
    for (let i = 0; i < count; i++) {
      const number = association[i];
      const target = contexts.target[context[i]];
      if (target === undefined) {
        // The context has ended since the datagram came, because its session has failed.
        const reason = core.dropReasonOf(number);
        counters.drops[reason]++;
        if (tap !== undefined) this.#host.records.record(tap, reason, data, i);
        continue;
      }
      if (!this.#isOpen[number]) {
        this.#isOpen[number] = true;
        path.open(number, core.source(number));
      }
      datagram.setPayload(number, data, offset[i], length[i], core.dscpOf(number));
      datagram.setTarget(target, 0, target.length);
      path.send(datagram);
    }
    path.flush();
  }

  bind(association: number): void {
    const { core, system } = this.#host;
    core.handleBound(system.now(), association, []);
  }

  /** Does nothing: a path has no sockets of single associations. */
  setLatency(): void {}

  /** Does nothing: each datagram carries its DSCP. */
  setDscp(): void {}

  release(association: number): void {
    if (!this.#isOpen[association]) return;
    this.#isOpen[association] = false;
    this.#path?.close(association);
  }

  async close(): Promise<void> {
    await this.#path?.end();
  }

  counts(): PathCounts | undefined {
    return this.#path?.counts?.();
  }

  // UdpPathHost

  deliver(association: number, remote: AddressBytes, data: Uint8Array, offset: number, length: number): void {
    if (!this.#isOpen[association]) return;
    const { core, driver } = this.#host;
    core.handleDatagram(driver.now(), association, data, offset, length, remote);
    driver.schedule();
  }

  refuse(association: number, remote: AddressBytes, kind: UnreachableKind, mtu: number): void {
    if (!this.#isOpen[association]) return;
    const { core, driver, system } = this.#host;
    core.handleUnreachable(system.now(), association, remote, kind, mtu);
    driver.schedule();
  }

  drop(reason: Parameters<UdpPathHost["drop"]>[0], count: number): void {
    this.#host.core.counters.drops[reason] += count;
  }
}
