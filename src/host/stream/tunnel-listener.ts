import { HostError } from "../../core/errors.ts";
import { parseEndpoint } from "../addresses/endpoint.ts";
import { parseInherited } from "../addresses/inherited.ts";
import { openOnEach } from "../addresses/listen-hosts.ts";
import type { System } from "../system.ts";
import type { ByteStream } from "./byte-stream.ts";
import type { ListenOptions, StreamListener } from "./tcp.ts";
import { joinListeners } from "./tcp.ts";

export interface TunnelListenerOptions {
  readonly system: System;
  readonly heartbeatMs: number;
  /** A connection was accepted. */
  readonly onConnection: (stream: ByteStream) => void;
  /** See {@link ListenOptions.onError}. */
  readonly onError: ListenOptions["onError"];
}

/**
 * Listens on all hosts of one value of the option.
 *
 * @param text   `IP:PORT`, `unix:/path` or `fd:N`
 * @param hosts  see {@link listenHosts}; unused for a Unix socket and a descriptor
 * @throws HostError ERR_LISTEN
 */
export async function openTunnelListener(
  text: string,
  hosts: readonly string[],
  { system, heartbeatMs, onConnection, onError }: TunnelListenerOptions,
): Promise<StreamListener> {
  const descriptor = parseInherited(text);
  const endpoint = parseEndpoint(text);
  const options = {
    onStream: (stream: ByteStream) => {
      stream.tune(heartbeatMs);
      onConnection(stream);
    },
    onError,
  };
  try {
    if (descriptor !== undefined) return await system.io.tcp.listenOn(descriptor, options);
    if (endpoint.path !== undefined) return await system.io.tcp.listen(endpoint, options);
    return joinListeners(
      await openOnEach(hosts, endpoint.port, (host, port) => system.io.tcp.listen({ host, port }, options)),
    );
  } catch (error) {
    throw new HostError("ERR_LISTEN", `${text}: ${(error as Error).message}`, { cause: error });
  }
}
