import type { LatencyClass } from "../../wire/latency-class.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import type { RefusalReason } from "../counters.ts";
import type { ProtocolError } from "../errors.ts";

/** What the host does with a connection that it is given. */
export type WhatFor =
  /** Its client has valid credentials, and its session is another worker's: `TunnelServer.handleHandedOver` there. */
  | { readonly kind: "hand-over"; readonly worker: number; readonly holder: string | undefined }
  /** Make it a WebSocket, by an answer to the request with `key`, and accept what that carries as a nested connection. */
  | { readonly kind: "web-socket"; readonly key: string }
  /** Go on with it as HTTP/2, and accept each of its requests as a nested connection. */
  | { readonly kind: "http2" }
  /** Answer the request like a web server that knows nothing of tunnels; it would have been refused for `refusal`. */
  | {
      readonly kind: "stranger";
      readonly refusal: { readonly reason: RefusalReason; readonly detail: string };
    };

export type ServerOutput =
  /** Write the remaining batches of `connection`, then close it. */
  | {
      readonly kind: "close";
      readonly connection: number;
      /** The client's error in an open tunnel. */
      readonly error: ProtocolError | undefined;
      /** Why it got no tunnel; only for this end. */
      readonly refusal: { readonly reason: RefusalReason; readonly detail: string } | undefined;
    }
  /** Leaves a connection to the host. Call `TunnelServer.handleDisconnected` here. */
  | (WhatFor & {
      readonly connection: number;
      /** The whole head of its request. */
      readonly head: Uint8Array;
      /** Bytes that were read behind the head. */
      readonly surplus: Uint8Array;
    })
  /**
   * Open the association's UDP sockets now and call `TunnelServer.handleBound`: the one for `target`, or, for a bound
   * tunnel, which has no target, one for each family that the server has.
   */
  | {
      readonly kind: "bind";
      readonly association: number;
      readonly connection: number;
      readonly target: AddressBytes | undefined;
    }
  /** The class of the association's sockets; undefined for that of the host. */
  | {
      readonly kind: "latency";
      readonly association: number;
      readonly latency: LatencyClass | undefined;
    }
  /** The DSCP of datagrams from the association's sockets, 0 until then. */
  | { readonly kind: "dscp"; readonly association: number; readonly dscp: number }
  /** The association has ended: close its sockets. */
  | { readonly kind: "release"; readonly association: number }
  /** Look up a name and call `TunnelServer.handleResolved`. */
  | { readonly kind: "resolve"; readonly query: number; readonly name: string; readonly port: number }
  | { readonly kind: "session-up"; readonly session: string; readonly lane: number }
  | { readonly kind: "session-resumed"; readonly session: string; readonly lane: number }
  | { readonly kind: "session-down"; readonly session: string }
  | { readonly kind: "session-ended"; readonly session: string; readonly reason: string };
