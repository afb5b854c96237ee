import type { Endpoint } from "../addresses/endpoint.ts";
import type { Outgoing } from "../addresses/outgoing.ts";
import type { Cancellation } from "../cancellation.ts";
import type { ByteStream } from "../stream/byte-stream.ts";
import type { System } from "../system.ts";
import { connectFirst, resolveHost } from "./happy-eyeballs.ts";

/**
 * Connects to a Unix socket, or over TCP to the address of the host that answers first.
 *
 * @param outgoing      interface or mark for the connection
 * @param cancellation  ends the attempt; it has no effect once the stream is connected
 * @throws Error with the reason for each address; HostError ERR_NATIVE
 */
export async function connectStream(
  system: System,
  endpoint: Endpoint,
  outgoing: Outgoing | undefined,
  cancellation: Cancellation,
): Promise<ByteStream> {
  if (endpoint.path !== undefined) {
    return connectFirst(
      [endpoint.path],
      (_, onDone) => system.io.tcp.connect(endpoint, undefined, onDone),
      cancellation,
      system,
    );
  }
  const { host, port } = endpoint;
  return connectFirst<ByteStream>(
    await resolveHost(system, host, cancellation),
    (ip, onDone) => system.io.tcp.connect({ host: ip, port }, outgoing, onDone),
    cancellation,
    system,
  );
}
