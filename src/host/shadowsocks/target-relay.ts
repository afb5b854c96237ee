import type { AddressBytes } from "../../wire/socket-address.ts";
import {
  ATYP_DOMAIN,
  addressDomain,
  addressPort,
  formatAddress,
  formatHost,
  makeAddress,
} from "../../wire/socket-address.ts";
import { Cancellation } from "../cancellation.ts";
import type { TcpWay } from "../carriers/carrier-chain.ts";
import { connectFirst, interleaveFamilies } from "../carriers/happy-eyeballs.ts";
import type { Logger } from "../log.ts";
import type { Loop } from "../loop.ts";
import type { ByteStream } from "../stream/byte-stream.ts";
import { relayTcp } from "../stream/tcp-relay.ts";

const CONNECT_MS = 10_000;

export interface TargetRelayOptions {
  readonly loop: Loop;
  /** Undefined if no target is permitted. */
  readonly way: TcpWay | undefined;
  /** Beyond it, further connections are refused. */
  readonly maxRelays: number;
  /** Judges an address, not a name. */
  readonly permits: (target: AddressBytes) => boolean;
  readonly lookUp: (name: string) => Promise<readonly string[]>;
  readonly log: Logger;
  readonly onRefused: (reason: "target_denied" | "tunnel_limit") => void;
}

/** Relays clients' TCP to targets that the policy permits. Names are resolved here, so that the policy judges their addresses. */
export class TargetRelay {
  readonly #options: TargetRelayOptions;
  readonly #near = new Set<ByteStream>();

  constructor(options: TargetRelayOptions) {
    this.#options = options;
  }

  /** Connects a client to its target, or ends its connection. */
  async relay(near: ByteStream, target: AddressBytes): Promise<void> {
    const { way, maxRelays, log, onRefused } = this.#options;
    if (this.#near.size >= maxRelays) {
      onRefused("tunnel_limit");
      near.destroy();
      return;
    }
    this.#near.add(near);
    const cancellation = new Cancellation();
    const forget = () => void this.#near.delete(near);
    // Reads nothing from it until its target is connected.
    near.handTo({
      onBytes: () => {},
      onEnd: () => {},
      onWritten: () => {},
      onClose: () => {
        forget();
        cancellation.cancel();
      },
    });
    try {
      const addresses = way === undefined ? [] : await this.#permitted(target);
      if (addresses.length === 0) onRefused("target_denied");
      const far = await this.#connect(addresses, addressPort(target), cancellation);
      if (cancellation.isCancelled) far.destroy();
      else relayTcp(near, far, this.#options.loop, { onClosed: forget });
    } catch (error) {
      log.debug(
        { target: formatAddress(target), error: (error as Error).message },
        "cannot relay to a target",
      );
      near.destroy();
    }
  }

  async close(): Promise<void> {
    for (const near of this.#near) near.destroy();
    await this.#options.way?.close();
  }

  /** IP texts. */
  async #permitted(target: AddressBytes): Promise<string[]> {
    const { permits, lookUp } = this.#options;
    const isName = target[0] === ATYP_DOMAIN;
    const found = isName ? await lookUp(addressDomain(target)) : [formatHost(target)];
    const port = addressPort(target);
    return interleaveFamilies(found).filter((ip) => {
      const address = makeAddress(ip, port);
      return address !== undefined && permits(address);
    });
  }

  async #connect(ips: readonly string[], port: number, cancellation: Cancellation): Promise<ByteStream> {
    const deadline = cancellation.within(this.#options.loop, CONNECT_MS);
    try {
      return await connectFirst<ByteStream>(
        ips,
        (ip, onDone) => {
          const attempt = new Cancellation();
          this.#options.way!.connect(makeAddress(ip, port)!, attempt).then(
            (far) => (attempt.isCancelled ? void far.destroy() : onDone(far)),
            (error: Error) => {
              if (!attempt.isCancelled) onDone(error.message);
            },
          );
          return () => attempt.cancel();
        },
        deadline,
        this.#options.loop,
      );
    } finally {
      deadline.release();
    }
  }
}
