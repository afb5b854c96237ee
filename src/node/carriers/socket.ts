import type { NetConnectOpts, Socket } from "node:net";
import { connect } from "node:net";
import type { OnRead } from "../carrier.ts";
import type { Endpoint } from "../endpoint.ts";

const KEEP_ALIVE_MS = 30_000;

/** Connects over TCP or to a Unix socket. @returns the socket, paused unless `onread` is given */
export function connectSocket(
  endpoint: Endpoint,
  signal: AbortSignal,
  onread: OnRead | undefined,
): Promise<Socket> {
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
