import { chmod, unlink } from "node:fs/promises";
import type { AddressInfo, Socket } from "node:net";
import { connect, createServer } from "node:net";
import type { Endpoint } from "../host/addresses/endpoint.ts";
import { formatEndpoint } from "../host/addresses/endpoint.ts";
import type { Bound } from "../host/addresses/listen-hosts.ts";
import type { NativeModule } from "../host/io/native-module.ts";
import { scopedAddress } from "../host/io/native-module.ts";
import { addressPort } from "../wire/socket-address.ts";

const BACKLOG = 1024;

/** Accepts connections on one IP, or on a Unix socket, which has port 0. */
export interface SocketListener extends Bound {
  /** `192.0.2.1:3456`, `[::1]:3456` or `unix:/path`, with the actual port. */
  readonly address: string;
  close(): Promise<void>;
}

/**
 * Listens by node:net.
 *
 * @param allowHalfOpen  true if a socket stays open for writing after its peer has ended
 * @param onError        called when accepting fails; the listener goes on
 */
export async function listenForSockets(
  endpoint: Endpoint,
  allowHalfOpen: boolean,
  onSocket: (socket: Socket) => void,
  onError: (error: Error) => void,
): Promise<SocketListener> {
  const server = createServer({ allowHalfOpen, noDelay: true, keepAlive: true }, onSocket);
  if (endpoint.path !== undefined) await removeStaleSocket(endpoint.path);
  await new Promise<void>((done, failed) => {
    server.once("error", failed);
    server.once("listening", done);
    // IPv4 has a socket of its own, so that its addresses appear as IPv4.
    server.listen({ ...endpoint, backlog: BACKLOG, ipv6Only: true });
  });
  if (endpoint.path !== undefined) await chmod(endpoint.path, 0o660);
  server.on("error", onError);
  const port = endpoint.path === undefined ? (server.address() as AddressInfo).port : 0;
  return {
    address: endpoint.path === undefined ? formatEndpoint(endpoint.host, port) : `unix:${endpoint.path}`,
    port,
    close: () => new Promise((done) => server.close(() => done())),
  };
}

/**
 * Listens by the native module.
 *
 * @param reusePort     true if other threads listen on the same port
 * @param onDescriptor  gets each connection
 */
export async function listenForDescriptors(
  native: NativeModule,
  { host, port }: { readonly host: string; readonly port: number },
  reusePort: boolean,
  onDescriptor: (descriptor: number) => void,
): Promise<SocketListener> {
  const listener = native.tcpListen!(scopedAddress(native, host, port), reusePort, BACKLOG, onDescriptor);
  const boundPort = addressPort(native.socketAddress!(listener)!);
  return {
    address: formatEndpoint(host, boundPort),
    port: boundPort,
    close: async () => native.tcpUnlisten!(listener),
  };
}

/** Combines several listeners on one port, under the address of the first. */
export function joined(listeners: readonly SocketListener[]): SocketListener {
  return {
    ...listeners[0],
    close: async () => void (await Promise.all(listeners.map((listener) => listener.close()))),
  };
}

/** Removes a Unix socket that a killed process has left, if nothing answers on it. */
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
