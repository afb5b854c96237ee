import type { IncomingMessage } from "node:http";
import { HostError } from "../../core/errors.ts";
import type { WebSocketRequest } from "../../host/carriers/web-socket-request.ts";
import type { TcpStream } from "../coded-stream.ts";
import { WEB_SOCKET_LIMITS, WebSocketLink } from "../web/web-socket-link.ts";
import { WebSocketStream } from "../web/web-socket-stream.ts";

/**
 * Opens a WebSocket on a stream to a web server (RFC 6455 §4.1). The result is paused.
 *
 * @throws Error with the reason; the stream is then destroyed
 */
export async function openWebSocket(
  stream: TcpStream,
  request: WebSocketRequest,
  signal: AbortSignal,
): Promise<WebSocketStream> {
  // Loaded when it is needed, as most clients need none.
  const { WebSocket } = await import("ws");
  const headers: Record<string, string | string[]> = { Host: request.host };
  for (const [name, value] of request.fields) headers[name] = [...(headers[name] ?? []), value];
  return new Promise((done, failed) => {
    const webSocket = new WebSocket(new URL(request.path, "ws://host"), {
      ...WEB_SOCKET_LIMITS,
      headers,
      createConnection: () => stream as ReturnType<typeof import("node:net").connect>,
    });
    const finish = (error?: Error) => {
      signal.removeEventListener("abort", handleAbort);
      if (error === undefined) return;
      webSocket.on("error", () => {});
      webSocket.terminate();
      stream.destroy();
      failed(error);
    };
    const handleAbort = () => finish(new HostError("ERR_CONNECT", "given up"));
    signal.addEventListener("abort", handleAbort);
    if (signal.aborted) handleAbort();
    webSocket.once("error", finish);
    webSocket.once("unexpected-response", (_, response) => finish(new Error(describe(response))));
    webSocket.once("open", () => {
      webSocket.off("error", finish);
      finish();
      done(new WebSocketStream(new WebSocketLink(webSocket, stream)));
    });
    // The previous hop has left it paused.
    stream.resume();
  });
}

/** What came instead of a WebSocket. */
function describe({ statusCode, headers }: IncomingMessage): string {
  const who = headers.server === undefined ? "it" : String(headers.server).slice(0, 64);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are the ones to remove.
  const name = who.replace(/[\x00-\x1f\x7f]/g, "");
  return `status ${statusCode} instead of 101: ${name} has no WebSocket at this path`;
}
