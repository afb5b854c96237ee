import { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import { WEB_SOCKET_LIMITS, WebSocketLink } from "./web-socket-link.ts";

/** Makes a WebSocket of a connection whose request had this key, or destroys it. */
export type AcceptWebSocket = (socket: Socket, key: string, surplus: Uint8Array) => WebSocketLink | undefined;

/** Loads what accepts WebSockets. */
export async function loadWebSocketAcceptor(): Promise<AcceptWebSocket> {
  const { WebSocketServer } = await import("ws");
  const server = new WebSocketServer({ noServer: true, clientTracking: false, ...WEB_SOCKET_LIMITS });
  return (socket, key, surplus) => {
    // Core has read and judged the request; these are the fields that the answer depends on.
    const request = new IncomingMessage(socket);
    request.method = "GET";
    request.headers = { upgrade: "websocket", "sec-websocket-version": "13", "sec-websocket-key": key };
    let link: WebSocketLink | undefined;
    const head = Buffer.from(surplus.buffer, surplus.byteOffset, surplus.length);
    server.handleUpgrade(request, socket, head, (webSocket) => {
      link = new WebSocketLink(webSocket, socket, undefined);
    });
    return link;
  };
}
