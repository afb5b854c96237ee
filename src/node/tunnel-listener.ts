import { chmod, unlink } from "node:fs/promises";
import type { AddressInfo, Server, SocketConstructorOpts } from "node:net";
import { connect, createServer, Socket } from "node:net";
import { HostError } from "../core/errors.ts";
import { makeAddress } from "../wire/socket-address.ts";
import { formatEndpoint, parseEndpoint } from "./endpoint.ts";
import type { Io } from "./io.ts";

const BACKLOG = 1024;

/** Bytes that came on a connection, borrowed until the call returns. */
export type OnBytes = (chunk: Uint8Array, length: number) => void;

/** A connection was accepted. @returns what takes its bytes */
export type OnConnection = (socket: Socket) => OnBytes;

/** Listens for tunnels. */
export interface TunnelListener {
  /** `192.0.2.1:3456`, `[::1]:3456` or `unix:/path`, with the port as it is. */
  readonly address: string;
  close(): Promise<void>;
}

export interface TunnelListenerOptions {
  readonly io: Io;
  /** Whether other threads may listen on the same port. */
  readonly reusePort: boolean;
  /** Where connections that were accepted natively read into, all of them in turn. */
  readonly readBuffer: Uint8Array;
  readonly onConnection: OnConnection;
  /** Accepting failed; the listener goes on. */
  readonly onError: (error: Error) => void;
}

/** @param text  `IP:PORT` or `unix:/path`. @throws HostError ERR_LISTEN */
export async function openTunnelListener(
  text: string,
  options: TunnelListenerOptions,
): Promise<TunnelListener> {
  const endpoint = parseEndpoint(text);
  const { native } = options.io;
  try {
    if (endpoint.path !== undefined || native?.tcpListen === undefined)
      return await listenPlain(text, options);
    const address = makeAddress(endpoint.host, endpoint.port)!;
    const listener = native.tcpListen(address, options.reusePort, BACKLOG, (fd) =>
      acceptDescriptor(fd, options),
    );
    return {
      address: formatEndpoint(endpoint.host, native.tcpPort!(listener)),
      close: async () => native.tcpUnlisten!(listener),
    };
  } catch (error) {
    throw new HostError("ERR_LISTEN", `${text}: ${(error as Error).message}`, { cause: error });
  }
}

/** Takes over the descriptor of a connection. */
export function acceptDescriptor(
  fd: number,
  { readBuffer, onConnection }: Pick<TunnelListenerOptions, "readBuffer" | "onConnection">,
): void {
  let onBytes: OnBytes | undefined;
  const socket = new Socket({
    fd,
    readable: true,
    writable: true,
    onread: {
      buffer: readBuffer,
      callback: (length: number, buffer: Uint8Array) => {
        onBytes?.(buffer, length);
        return true;
      },
    },
  } as SocketConstructorOpts);
  socket.setNoDelay(true);
  socket.setKeepAlive(true);
  onBytes = onConnection(socket);
  socket.resume();
}

async function listenPlain(
  text: string,
  { onConnection, onError }: TunnelListenerOptions,
): Promise<TunnelListener> {
  const endpoint = parseEndpoint(text);
  const server = createServer({ noDelay: true, keepAlive: true }, (socket) => {
    const onBytes = onConnection(socket);
    socket.on("data", (chunk: Uint8Array) => onBytes(chunk, chunk.length));
  });
  if (endpoint.path !== undefined) await removeStaleSocket(endpoint.path);
  await new Promise<void>((done, failed) => {
    server.once("error", failed);
    server.once("listening", done);
    // [::] beside 0.0.0.0 is no conflict when it stands for IPv6 alone.
    server.listen({ ...endpoint, backlog: BACKLOG, ipv6Only: true });
  });
  if (endpoint.path !== undefined) await chmod(endpoint.path, 0o660);
  server.on("error", onError);
  return {
    address: addressText(server),
    close: () => new Promise((done) => server.close(() => done())),
  };
}

function addressText(server: Server): string {
  const address = server.address() as AddressInfo | string | null;
  if (address === null || typeof address === "string") return `unix:${address}`;
  return formatEndpoint(address.address, address.port);
}

/** A Unix socket that a killed process left behind, and that nobody answers on, is taken over. */
async function removeStaleSocket(path: string): Promise<void> {
  const code = await new Promise<string | undefined>((done) => {
    const probe = connect({ path });
    probe.once("connect", () => {
      probe.destroy();
      done(undefined);
    });
    probe.once("error", (error: NodeJS.ErrnoException) => done(error.code));
  });
  if (code === "ECONNREFUSED") await unlink(path);
}
