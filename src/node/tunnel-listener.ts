import type { Socket } from "node:net";
import { HostError } from "../core/errors.ts";
import { addressPort, makeAddress } from "../wire/socket-address.ts";
import type { ByteStream } from "./byte-stream.ts";
import { DescriptorStream } from "./byte-stream-native.ts";
import { formatEndpoint, parseEndpoint } from "./endpoint.ts";
import type { Io } from "./io.ts";
import { openByteStream } from "./open-byte-stream.ts";
import type { SocketListener } from "./socket-listener.ts";
import { listenForSockets } from "./socket-listener.ts";

const BACKLOG = 1024;

export interface TunnelListenerOptions {
  readonly io: Io;
  readonly heartbeatMs: number;
  /** Where connections are read into natively, all of them in turn. */
  readonly readBuffer: Uint8Array;
  /** A connection was accepted: it is to be started at once. */
  readonly onConnection: (stream: ByteStream) => void;
  /** Accepting failed; the listener goes on. */
  readonly onError: (error: Error) => void;
}

/** @param text  `IP:PORT` or `unix:/path`. @throws HostError ERR_LISTEN */
export async function openTunnelListener(
  text: string,
  options: TunnelListenerOptions,
): Promise<SocketListener> {
  const endpoint = parseEndpoint(text);
  const { io, heartbeatMs, readBuffer, onConnection } = options;
  const { native } = io;
  try {
    if (endpoint.path !== undefined || native?.tcpListen === undefined) {
      const open = (stream: Socket) =>
        openByteStream({ stream, onread: false, isOurs: true }, io, heartbeatMs, readBuffer);
      return await listenForSockets(text, (socket) => onConnection(open(socket)), options.onError);
    }
    const address = makeAddress(endpoint.host, endpoint.port)!;
    const listener = native.tcpListen(address, false, BACKLOG, (fd) =>
      onConnection(new DescriptorStream(native, fd, readBuffer, heartbeatMs, undefined)),
    );
    return {
      address: formatEndpoint(endpoint.host, addressPort(native.socketAddress!(listener)!)),
      close: async () => native.tcpUnlisten!(listener),
    };
  } catch (error) {
    throw new HostError("ERR_LISTEN", `${text}: ${(error as Error).message}`, { cause: error });
  }
}
