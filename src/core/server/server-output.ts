import type { LatencyClass } from "../../wire/latency-class.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import type { RefusalReason } from "../counters.ts";
import type { ProtocolError } from "../errors.ts";

/** What the host should do with a connection that core gives away. */
export type WhatFor =
  /** Pass it to `TunnelServer.handleHandedOver` of another worker, which has its session. The client has valid credentials. */
  | { readonly kind: "hand-over"; readonly worker: number; readonly holder: string | undefined }
  /** Make it a WebSocket: answer its request, whose key is `key`, and accept its payload as a nested connection. */
  | { readonly kind: "web-socket"; readonly key: string }
  /** Continue it as HTTP/2, and accept each of its requests as a nested connection. */
  | { readonly kind: "http2" }
  /** Answer the request as a web server that knows nothing of tunnels. `refusal` is why core would have refused it. */
  | {
      readonly kind: "stranger";
      readonly refusal: { readonly reason: RefusalReason; readonly detail: string };
    };

export type ServerOutput =
  /** Write the remaining batches of `connection`, then close it. */
  | {
      readonly kind: "close";
      readonly connection: number;
      /** The client's error, in an open tunnel. */
      readonly error: ProtocolError | undefined;
      /** Why the client got no tunnel. For this end's log only. */
      readonly refusal: { readonly reason: RefusalReason; readonly detail: string } | undefined;
    }
  /** Gives a connection to the host, which calls `TunnelServer.handleDisconnected` of this server. */
  | (WhatFor & {
      readonly connection: number;
      /** The complete head of its request. */
      readonly head: Uint8Array;
      /** Bytes that were read after the head. */
      readonly surplus: Uint8Array;
    })
  /**
   * Open the association's UDP sockets now and call `TunnelServer.handleBound`. A tunnel with a target needs one for the target's
   * family; a bound tunnel has no target and needs one for each family that the server has.
   */
  | {
      readonly kind: "bind";
      readonly association: number;
      readonly connection: number;
      readonly target: AddressBytes | undefined;
    }
  /** Set the latency class of the association's sockets; undefined stands for the host's default. */
  | {
      readonly kind: "latency";
      readonly association: number;
      readonly latency: LatencyClass | undefined;
    }
  /** Set the DSCP of datagrams from the association's sockets. It is 0 until then. */
  | { readonly kind: "dscp"; readonly association: number; readonly dscp: number }
  /** Close the association's sockets. It has ended. */
  | { readonly kind: "release"; readonly association: number }
  /** Look up a name and call `TunnelServer.handleResolved`. `client`: whom the name is for, see `LookupTurns`. */
  | {
      readonly kind: "resolve";
      readonly client: string;
      readonly query: number;
      readonly name: string;
      readonly port: number;
    }
  | { readonly kind: "session-up"; readonly session: string; readonly lane: number }
  | { readonly kind: "session-resumed"; readonly session: string; readonly lane: number }
  | { readonly kind: "session-down"; readonly session: string }
  | { readonly kind: "session-ended"; readonly session: string; readonly reason: string };
