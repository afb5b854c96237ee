import type { Socket } from "node:net";
import { HostError } from "../core/errors.ts";
import { parseEndpoint } from "../host/addresses/endpoint.ts";
import { openOnEach } from "../host/addresses/listen-hosts.ts";
import type { Io } from "../host/io/io.ts";
import type { ByteStream } from "./byte-stream.ts";
import { DescriptorStream } from "./byte-stream-native.ts";
import { openByteStream } from "./open-byte-stream.ts";
import type { SocketListener } from "./socket-listener.ts";
import { joined, listenForDescriptors, listenForSockets } from "./socket-listener.ts";

export interface TunnelListenerOptions {
  readonly io: Io;
  readonly heartbeatMs: number;
  /** Shared buffer that connections are read into natively. */
  readonly readBuffer: Uint8Array;
  /** A connection was accepted, and has to be started at once. */
  readonly onConnection: (stream: ByteStream) => void;
  /** Accepting failed; the listener goes on. */
  readonly onError: (error: Error) => void;
}

/**
 * Listens on all hosts of one value of the option.
 *
 * @param text   `IP:PORT` or `unix:/path`
 * @param hosts  see {@link listenHosts}; none for a Unix socket
 * @throws HostError ERR_LISTEN
 */
export async function openTunnelListener(
  text: string,
  hosts: readonly string[],
  options: TunnelListenerOptions,
): Promise<SocketListener> {
  const endpoint = parseEndpoint(text);
  const { io, heartbeatMs, readBuffer, onConnection, onError } = options;
  const { native } = io;
  const onSocket = (stream: Socket) =>
    onConnection(openByteStream({ stream, onread: false, isOurs: true }, io, heartbeatMs, readBuffer));
  const listen = (host: string, port: number) =>
    native?.tcpListen === undefined
      ? listenForSockets({ host, port }, false, onSocket, onError)
      : listenForDescriptors(native, { host, port }, false, (fd) =>
          onConnection(new DescriptorStream(native, fd, readBuffer, heartbeatMs, undefined)),
        );
  try {
    if (endpoint.path !== undefined) return await listenForSockets(endpoint, false, onSocket, onError);
    return joined(await openOnEach(hosts, endpoint.port, listen));
  } catch (error) {
    throw new HostError("ERR_LISTEN", `${text}: ${(error as Error).message}`, { cause: error });
  }
}
