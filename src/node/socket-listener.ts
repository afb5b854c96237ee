import { chmod, unlink } from "node:fs/promises";
import type { AddressInfo, Server, Socket } from "node:net";
import { connect, createServer } from "node:net";
import { formatEndpoint, parseEndpoint } from "./endpoint.ts";

const BACKLOG = 1024;

/** A listener of node:net. */
export interface SocketListener {
  /** `192.0.2.1:3456`, `[::1]:3456` or `unix:/path`, with the port as it is. */
  readonly address: string;
  close(): Promise<void>;
}

/** @param text  `IP:PORT` or `unix:/path`. @param onError  accepting failed; the listener goes on */
export async function listenForSockets(
  text: string,
  onSocket: (socket: Socket) => void,
  onError: (error: Error) => void,
): Promise<SocketListener> {
  const endpoint = parseEndpoint(text);
  const server = createServer({ noDelay: true, keepAlive: true }, onSocket);
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
