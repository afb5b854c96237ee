import type { ConnectUdpRequest } from "../../core/masque/connect-udp-upgrade.ts";
import type { Cancellation } from "../cancellation.ts";
import type { ByteStream } from "../stream/byte-stream.ts";

/** A connection to a MASQUE proxy that takes many requests: HTTP/2. */
export interface MasqueSession {
  /** True if it may take another request. */
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
 * Begins HTTP/2 on a stream, which it takes over.
 *
 * @param heartbeatMs  time between PINGs; without an answer for three, it is dead
 * @returns undefined if the other end does not have extended CONNECT (RFC 8441 §3); the stream is then destroyed
 */
export type OpenMasqueSession = (
  stream: ByteStream,
  scheme: "http" | "https",
  authority: string,
  heartbeatMs: number,
  cancellation: Cancellation,
) => Promise<MasqueSession | undefined>;
