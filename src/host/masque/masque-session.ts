import type { ConnectUdpRequest } from "../../core/masque/connect-udp-upgrade.ts";
import type { Cancellation } from "../cancellation.ts";
import type { ByteStream } from "../stream/byte-stream.ts";

/** A connection to a MASQUE proxy that takes many requests: HTTP/2. */
export interface MasqueSession {
  /** True if it can take another request. */
  readonly hasRoom: boolean;
  readonly isClosed: boolean;
  /** @throws MasqueRefusal, HostError ERR_CONNECTION_LOST */
  request(
    request: ConnectUdpRequest,
    cancellation: Cancellation,
  ): Promise<{ readonly stream: ByteStream; readonly isBound: boolean }>;
  destroy(): void;
}

/**
 * Starts HTTP/2 on a stream, which it takes over.
 *
 * @param heartbeatMs  time between PINGs; the session is dead after three without an answer
 * @returns undefined if the other end does not support extended CONNECT (RFC 8441 §3); the stream is then destroyed
 */
export type OpenMasqueSession = (
  stream: ByteStream,
  scheme: "http" | "https",
  authority: string,
  heartbeatMs: number,
  cancellation: Cancellation,
) => Promise<MasqueSession | undefined>;
