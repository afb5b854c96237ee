import type { Endpoint } from "../../host/addresses/endpoint.ts";
import type { Outgoing } from "../../host/addresses/outgoing.ts";
import type { Cancellation } from "../../host/cancellation.ts";
import type { ByteStream } from "../../host/stream/byte-stream.ts";
import type { Tcp } from "../../host/stream/tcp.ts";
import { connectFirst, resolveHost } from "./happy-eyeballs.ts";

/**
 * Connects to a Unix socket, or over TCP to whichever address of the host answers first.
 *
 * @param outgoing      interface or mark to leave by
 * @param cancellation  ends the attempt; it has no effect once the stream is connected
 * @throws Error with the reason for each address; HostError ERR_NATIVE
 */
export async function connectStream(
  tcp: Tcp,
  endpoint: Endpoint,
  outgoing: Outgoing | undefined,
  cancellation: Cancellation,
): Promise<ByteStream> {
  if (endpoint.path !== undefined) {
    return connectFirst(
      [endpoint.path],
      (_, onDone) => tcp.connect(endpoint, undefined, onDone),
      cancellation,
    );
  }
  const { host, port } = endpoint;
  return connectFirst<ByteStream>(
    await resolveHost(host, cancellation),
    (ip, onDone) => tcp.connect({ host: ip, port }, outgoing, onDone),
    cancellation,
  );
}
