import type { NetConnectOpts, SocketConstructorOpts } from "node:net";
import { connect, Socket } from "node:net";
import { getSystemErrorMap } from "node:util";
import { HostError } from "../../core/errors.ts";
import type { Endpoint } from "../../host/addresses/endpoint.ts";
import { splitZone } from "../../host/addresses/endpoint.ts";
import type { Outgoing } from "../../host/addresses/outgoing.ts";
import { isLoopback } from "../../host/addresses/outgoing.ts";
import type { NativeModule } from "../../host/io/native-module.ts";
import { scopedAddress } from "../../host/io/native-module.ts";
import { makeAddress } from "../../wire/socket-address.ts";
import type { OnRead } from "../carrier.ts";
import { loadNativeModule } from "../load-native-module.ts";
import type { BeginAttempt } from "./happy-eyeballs.ts";
import { connectFirst, resolveHost } from "./happy-eyeballs.ts";

const KEEP_ALIVE_MS = 30_000;

/** Properties of the new socket. */
export interface SocketOptions {
  /** The socket reads into this, starting as soon as it is connected. */
  readonly onread?: OnRead | undefined;
  readonly outgoing: Outgoing | undefined;
  /** Whether the socket stays writable after the peer has sent its FIN. */
  readonly allowHalfOpen: boolean;
}

/** The second argument of a {@link BeginAttempt}. */
type OnDone = (result: Socket | string) => void;

/**
 * Connects to a Unix socket, or over TCP to whichever address of the host answers first.
 *
 * @param signal  cancels the attempt; it has no effect once the socket is connected
 * @throws Error with the reason for each address; HostError ERR_NATIVE
 */
export async function connectSocket(
  endpoint: Endpoint,
  signal: AbortSignal,
  options: SocketOptions,
): Promise<Socket> {
  const { path } = endpoint;
  if (path !== undefined) {
    return connectFirst([path], (_, onDone) => beginPlain({ path }, options, onDone), signal);
  }
  const { host, port } = endpoint;
  const restrict = options.outgoing === undefined ? undefined : restrictTo(options.outgoing, options);
  const begin: BeginAttempt<Socket> = (ip, onDone) => {
    if (restrict !== undefined && !isLoopback(makeAddress(splitZone(ip).ip, port)!)) {
      return restrict(ip, port, onDone);
    }
    return beginPlain({ host: ip, port }, options, onDone);
  };
  return connectFirst(await resolveHost(host, signal), begin, signal);
}

function beginPlain(
  to: { readonly path: string } | { readonly host: string; readonly port: number },
  { onread, allowHalfOpen }: SocketOptions,
  onDone: OnDone,
): () => void {
  const options = { ...to, ...(onread === undefined ? {} : { onread }), allowHalfOpen };
  const socket = connect(options as NetConnectOpts);
  const handleError = (error: NodeJS.ErrnoException) => onDone(systemText(error.errno) ?? error.message);
  socket.once("error", handleError);
  socket.once("connect", () => {
    socket.off("error", handleError);
    onDone(keepAlive(socket));
  });
  return () => socket.destroy();
}

/** Connects natively, since the socket must be restricted before it connects. @throws HostError ERR_NATIVE */
function restrictTo(
  { interfaceName, mark }: Outgoing,
  { onread, allowHalfOpen }: SocketOptions,
): (ip: string, port: number, onDone: OnDone) => () => void {
  const native = loadNativeModule();
  if (native instanceof Error || native.tcpConnect === undefined) {
    throw new HostError("ERR_NATIVE", "an interface or a mark to leave by needs native I/O");
  }
  const { tcpConnect, tcpConnectCancel } = native as Required<NativeModule>;
  const options = {
    readable: true,
    writable: true,
    allowHalfOpen,
    ...(onread === undefined ? {} : { onread }),
  };
  return (ip, port, onDone) => {
    const attempt = tcpConnect(scopedAddress(native, ip, port), interfaceName, mark, (result) => {
      if (result < 0) onDone(systemText(result)!);
      else onDone(keepAlive(new Socket({ ...options, fd: result } as SocketConstructorOpts)));
    });
    return () => tcpConnectCancel(attempt);
  };
}

function keepAlive(socket: Socket): Socket {
  return socket.setNoDelay(true).setKeepAlive(true, KEEP_ALIVE_MS);
}

/** `connection refused (ECONNREFUSED)`. */
function systemText(errno: number | undefined): string | undefined {
  const known = errno === undefined ? undefined : getSystemErrorMap().get(errno);
  return known && `${known[1]} (${known[0]})`;
}
