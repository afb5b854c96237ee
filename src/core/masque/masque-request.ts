import type { AddressBytes } from "../../wire/socket-address.ts";
import type { SendQueue } from "../session/queue/send-queue.ts";
import type { Tunnel } from "../session/tunnel.ts";

/** One request to a proxy, for one target, or, if the proxy lets it bind, for all targets of an association. */
export interface MasqueRequest {
  /** A reusable number: the lane's for the host, the flow's for queues. */
  readonly index: number;
  readonly association: number;
  /** The target of context 0. */
  readonly target: AddressBytes;
  /** Whether it asks the proxy to bind. */
  readonly asksBind: boolean;
  /** "idle": without a connection. "connecting": not answered yet. "open": answered with a tunnel. */
  state: "idle" | "connecting" | "open";
  /** Whether the proxy lets it bind. Until the proxy has answered: whether it may. */
  mayBind: boolean;
  /** Context slots by their id on the wire. */
  readonly slotById: Map<number, number>;
  nextId: number;
  /** Datagrams that wait for the answer. */
  readonly waiting: SendQueue;
  /** Set while it is open. */
  tunnel: Tunnel | undefined;
  isReady: boolean;
}
