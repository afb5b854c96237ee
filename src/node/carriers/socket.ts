import { lookup } from "node:dns/promises";
import type { NetConnectOpts, SocketConstructorOpts } from "node:net";
import { connect, Socket } from "node:net";
import { HostError } from "../../core/errors.ts";
import { makeAddress } from "../../wire/socket-address.ts";
import type { OnRead } from "../carrier.ts";
import type { Endpoint } from "../endpoint.ts";
import { loadNativeModule } from "../native-module.ts";
import type { Outgoing } from "../outgoing.ts";
import { isLoopback } from "../outgoing.ts";

const KEEP_ALIVE_MS = 30_000;

/** What a socket is to be like. */
export interface SocketOptions {
  /** Where it reads into, and begins to at once. */
  readonly onread?: OnRead | undefined;
  readonly outgoing: Outgoing | undefined;
  /** Stays open for writing when the other end has ended. */
  readonly allowHalfOpen: boolean;
}

/** Connects over TCP or to a Unix socket. */
export function connectSocket(
  endpoint: Endpoint,
  signal: AbortSignal,
  socketOptions: SocketOptions,
): Promise<Socket> {
  const { outgoing, onread, allowHalfOpen } = socketOptions;
  if (outgoing !== undefined && endpoint.path === undefined) {
    return connectRestricted(endpoint, signal, socketOptions, outgoing);
  }
  const options = {
    ...endpoint,
    ...(onread === undefined ? {} : { onread }),
    allowHalfOpen,
    noDelay: true,
    keepAlive: true,
    keepAliveInitialDelay: KEEP_ALIVE_MS,
  } as NetConnectOpts;
  return new Promise((done, failed) => {
    if (signal.aborted) {
      failed(new HostError("ERR_CONNECT", "given up"));
      return;
    }
    const socket = connect(options);
    // Not net.connect's own option, which would end the connection long after it is made.
    const giveUp = () => socket.destroy(new HostError("ERR_CONNECT", "given up"));
    signal.addEventListener("abort", giveUp, { once: true });
    socket.once("error", failed);
    socket.once("close", () => signal.removeEventListener("abort", giveUp));
    socket.once("connect", () => {
      signal.removeEventListener("abort", giveUp);
      socket.off("error", failed);
      done(socket);
    });
  });
}

/** Connects natively: the socket has to be restricted before. @throws HostError ERR_NATIVE */
async function connectRestricted(
  { host, port }: { readonly host: string; readonly port: number },
  signal: AbortSignal,
  { onread, allowHalfOpen }: SocketOptions,
  { interfaceName, mark }: Outgoing,
): Promise<Socket> {
  const native = loadNativeModule();
  if (native instanceof Error || native.tcpConnect === undefined) {
    throw new HostError("ERR_NATIVE", "an interface or a mark to leave by needs native I/O");
  }
  const { address: ip } = await lookup(host);
  signal.throwIfAborted();
  const address = makeAddress(ip, port)!;
  if (isLoopback(address)) {
    return connectSocket({ host: ip, port }, signal, { onread, allowHalfOpen, outgoing: undefined });
  }
  const fd = await new Promise<number>((done, failed) => {
    const giveUp = () => failed(new HostError("ERR_CONNECT", "given up"));
    signal.addEventListener("abort", giveUp, { once: true });
    native.tcpConnect!(address, interfaceName, mark, (result) => {
      signal.removeEventListener("abort", giveUp);
      if (typeof result === "string") failed(new Error(result));
      else if (signal.aborted) native.descriptorClose!(result);
      else done(result);
    });
  });
  const restricted = {
    fd,
    readable: true,
    writable: true,
    allowHalfOpen,
    ...(onread === undefined ? {} : { onread }),
  };
  const socket = new Socket(restricted as SocketConstructorOpts);
  socket.setNoDelay(true);
  socket.setKeepAlive(true, KEEP_ALIVE_MS);
  return socket;
}
