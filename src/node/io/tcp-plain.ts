import { chmod } from "node:fs/promises";
import type { AddressInfo, ListenOptions as ListenOptionsOfNode, Server, Socket } from "node:net";
import { connect, createServer } from "node:net";
import { HostError } from "../../core/errors.ts";
import type { Endpoint } from "../../host/addresses/endpoint.ts";
import { formatEndpoint, splitZone } from "../../host/addresses/endpoint.ts";
import type { Outgoing } from "../../host/addresses/outgoing.ts";
import { isLoopback } from "../../host/addresses/outgoing.ts";
import type { ByteStream } from "../../host/stream/byte-stream.ts";
import type { ListenOptions, StreamListener, Tcp } from "../../host/stream/tcp.ts";
import { BACKLOG, KEEP_ALIVE_MS, UNIX_MODE } from "../../host/stream/tcp.ts";
import { connectNatively } from "../../host/stream/tcp-native.ts";
import { makeAddress } from "../../wire/socket-address.ts";
import { loadNativeModule } from "../load-native-module.ts";
import { nodeErrors, systemText } from "../system-text.ts";
import { socketOf } from "./byte-stream-duplex.ts";
import { PlainStream } from "./byte-stream-plain.ts";
import { removeStaleSocket } from "./stale-socket.ts";

/** Connections over node:net. */
export const plainTcp: Tcp = {
  connect: (endpoint, outgoing, onDone) => {
    const isRestricted =
      outgoing !== undefined &&
      endpoint.path === undefined &&
      !isLoopback(makeAddress(splitZone(endpoint.host).ip, endpoint.port)!);
    if (isRestricted) return connectRestricted(endpoint, outgoing, onDone);
    const socket = connect({ ...endpoint, allowHalfOpen: true });
    const handleError = (error: NodeJS.ErrnoException) => onDone(systemText(error.errno) ?? error.message);
    socket.once("error", handleError);
    socket.once("connect", () => {
      socket.off("error", handleError);
      socket.setNoDelay(true).setKeepAlive(true, KEEP_ALIVE_MS);
      onDone(new PlainStream(socket));
    });
    return () => socket.destroy();
  },
  listen: (endpoint, { onStream, ...options }) =>
    listenForSockets(endpoint, { ...options, onSocket: (socket) => onStream(new PlainStream(socket)) }),
  listenOn: async (descriptor, { onStream, onError, keepAliveMs }) => {
    const server = makeServer(keepAliveMs, (socket) => onStream(new PlainStream(socket)));
    await listening(server, { fd: descriptor, backlog: BACKLOG });
    const bound = server.address();
    const isIp = typeof bound === "object" && bound !== null;
    const address = isIp ? formatEndpoint(bound.address, bound.port) : `fd:${descriptor}`;
    server.on("error", acceptError(server, address, onError));
    return {
      address,
      port: isIp ? bound.port : 0,
      close: closer(server),
    };
  },
};

/** Connects natively nevertheless, because the socket must be restricted before it connects. @throws HostError ERR_NATIVE */
function connectRestricted(
  endpoint: Endpoint,
  outgoing: Outgoing,
  onDone: (result: ByteStream | string) => void,
): () => void {
  const native = loadNativeModule();
  if (native instanceof Error || native.tcpConnect === undefined) {
    throw new HostError("ERR_NATIVE", "an outgoing interface or mark needs native I/O");
  }
  return connectNatively(native, nodeErrors, endpoint, outgoing, (result) =>
    onDone(typeof result === "string" ? result : new PlainStream(socketOf(result))),
  );
}

/** Like {@link Tcp.listen}, for sockets of node:net. */
export async function listenForSockets(
  endpoint: Endpoint,
  options: Pick<ListenOptions, "keepAliveMs" | "onError"> & { readonly onSocket: (socket: Socket) => void },
): Promise<StreamListener> {
  const { keepAliveMs, onSocket, onError } = options;
  const server = makeServer(keepAliveMs, onSocket);
  if (endpoint.path !== undefined) await removeStaleSocket(endpoint.path);
  // IPv4 has a socket of its own, so that its addresses appear as IPv4.
  await listening(server, { ...endpoint, backlog: BACKLOG, ipv6Only: true });
  if (endpoint.path !== undefined) await chmod(endpoint.path, UNIX_MODE);
  const port = endpoint.path === undefined ? (server.address() as AddressInfo).port : 0;
  const address = endpoint.path === undefined ? formatEndpoint(endpoint.host, port) : `unix:${endpoint.path}`;
  server.on("error", acceptError(server, address, onError));
  return {
    address,
    port,
    close: closer(server),
  };
}

/** Errors after which a socket is no listener any more; others concern single connections, or pass. */
const FINAL_ERRORS = ["EINVAL", "EBADF", "ENOTSOCK"];

/** Handles the errors of a server that listens on `address`; without that, they would be thrown. */
export function acceptError(
  server: Server,
  address: string,
  onError: ListenOptions["onError"],
): (error: NodeJS.ErrnoException) => void {
  return (error) => {
    const isFinal = FINAL_ERRORS.includes(error.code ?? "");
    // It would be reported again and again.
    if (isFinal) server.close();
    const reason = systemText(error.errno) ?? error.message;
    const reported = isFinal ? new HostError("ERR_LISTEN", `${address}: ${reason}`, { cause: error }) : error;
    onError(reported, isFinal);
  };
}

function makeServer(keepAliveMs: number | undefined, onSocket: (socket: Socket) => void): Server {
  const keepAlive = { keepAlive: true, keepAliveInitialDelay: keepAliveMs ?? 0 };
  return createServer({ allowHalfOpen: true, noDelay: true, ...keepAlive }, onSocket);
}

function listening(
  server: Server,
  how: ListenOptionsOfNode | { readonly fd: number; readonly backlog: number },
): Promise<void> {
  return new Promise((done, failed) => {
    server.once("error", failed);
    server.once("listening", () => {
      server.off("error", failed);
      done();
    });
    server.listen(how);
  });
}

function closer(server: Server): () => Promise<void> {
  return async () => {
    // Its callback also waits for its connections to close, but those belong to others.
    server.close();
  };
}
