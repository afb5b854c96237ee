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

/** Connects over TCP or to a Unix socket. @returns the socket, paused unless `onread` is given */
export function connectSocket(
  endpoint: Endpoint,
  signal: AbortSignal,
  onread: OnRead | undefined,
  outgoing: Outgoing | undefined,
): Promise<Socket> {
  if (outgoing !== undefined && endpoint.path === undefined) {
    return connectRestricted(endpoint, signal, onread, outgoing);
  }
  const options = {
    ...endpoint,
    ...(onread === undefined ? {} : { onread }),
    noDelay: true,
    keepAlive: true,
    keepAliveInitialDelay: KEEP_ALIVE_MS,
    signal,
  } as NetConnectOpts;
  return new Promise((done, failed) => {
    const socket = connect(options);
    socket.once("error", failed);
    socket.once("connect", () => {
      socket.off("error", failed);
      done(socket);
    });
  });
}

/** Connects natively: the socket has to be restricted before. @throws HostError ERR_NATIVE */
async function connectRestricted(
  { host, port }: { readonly host: string; readonly port: number },
  signal: AbortSignal,
  onread: OnRead | undefined,
  { interfaceName, mark }: Outgoing,
): Promise<Socket> {
  const native = loadNativeModule();
  if (native instanceof Error || native.tcpConnect === undefined) {
    throw new HostError("ERR_NATIVE", "an interface or a mark to leave by needs native I/O");
  }
  const { address: ip } = await lookup(host);
  signal.throwIfAborted();
  const address = makeAddress(ip, port)!;
  if (isLoopback(address)) return connectSocket({ host: ip, port }, signal, onread, undefined);
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
  const restricted = { fd, readable: true, writable: true, ...(onread === undefined ? {} : { onread }) };
  const socket = new Socket(restricted as SocketConstructorOpts);
  socket.setNoDelay(true);
  socket.setKeepAlive(true, KEEP_ALIVE_MS);
  signal.addEventListener("abort", () => socket.destroy(), { once: true });
  return socket;
}
