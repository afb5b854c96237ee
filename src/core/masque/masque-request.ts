import type { AddressBytes } from "../../wire/socket-address.ts";
import type { SendQueue } from "../session/queue/send-queue.ts";
import type { Tunnel } from "../session/tunnel.ts";

/** One request to a proxy: for one target, or for all targets of an association where the proxy lets it bind. */
export interface MasqueRequest {
  /** A reusable number: of its lane for the host, of its flow for queues. */
  readonly index: number;
  readonly association: number;
  /** The target of context 0. */
  readonly target: AddressBytes;
  /** It asks the proxy to bind. */
  readonly asksBind: boolean;
  /** Without a connection; being connected and asked; answered with a tunnel. */
  state: "idle" | "connecting" | "open";
  /** The proxy lets it bind; as long as it has not answered, whether it may. */
  mayBind: boolean;
  /** Slots of contexts by their id on the wire. */
  readonly slotById: Map<number, number>;
  nextId: number;
  /** What waits for the answer. */
  readonly waiting: SendQueue;
  /** Of the open request. */
  tunnel: Tunnel | undefined;
  isReady: boolean;
}
