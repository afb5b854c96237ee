import type { IncomingMessage } from "node:http";
import { HostError } from "../../core/errors.ts";
import type { Cancellation } from "../../host/cancellation.ts";
import type { WebSocketRequest } from "../../host/carriers/web-socket-request.ts";
import type { NativeModule } from "../../host/io/native-module.ts";
import type { ByteStream } from "../../host/stream/byte-stream.ts";
import { toDuplex } from "../byte-stream-duplex.ts";
import { WebSocketByteStream } from "../web/byte-stream-web-socket.ts";
import { WEB_SOCKET_LIMITS, WebSocketLink } from "../web/web-socket-link.ts";

/**
 * Opens a WebSocket on a stream to a web server (RFC 6455 §4.1).
 *
 * @param native  sets options of the socket that node:net cannot set
 * @throws Error with the reason; the stream is then destroyed
 */
export async function openWebSocket(
  stream: ByteStream,
  request: WebSocketRequest,
  cancellation: Cancellation,
  native: NativeModule | undefined,
): Promise<ByteStream> {
  // Loaded when it is needed, as most clients need none.
  const { WebSocket } = await import("ws");
  const carrier = toDuplex(stream);
  const headers: Record<string, string | string[]> = { Host: request.host };
  for (const [name, value] of request.fields) headers[name] = [...(headers[name] ?? []), value];
  return new Promise((done, failed) => {
    const webSocket = new WebSocket(new URL(request.path, "ws://host"), {
      ...WEB_SOCKET_LIMITS,
      headers,
      createConnection: () => carrier as ReturnType<typeof import("node:net").connect>,
    });
    const finish = (error?: Error) => {
      leave();
      if (error === undefined) return;
      webSocket.on("error", () => {});
      webSocket.terminate();
      carrier.destroy();
      failed(error);
    };
    const leave = cancellation.onCancel(() => finish(new HostError("ERR_CONNECT", "given up")));
    webSocket.once("error", finish);
    webSocket.once("unexpected-response", (_, response) => finish(new Error(describe(response))));
    webSocket.once("open", () => {
      webSocket.off("error", finish);
      finish();
      done(new WebSocketByteStream(new WebSocketLink(webSocket, carrier, native)));
    });
    // The previous hop has left it paused.
    carrier.resume();
  });
}

/** What came instead of a WebSocket. */
function describe({ statusCode, headers }: IncomingMessage): string {
  const who = headers.server === undefined ? "it" : String(headers.server).slice(0, 64);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are the ones to remove.
  const name = who.replace(/[\x00-\x1f\x7f]/g, "");
  return `status ${statusCode} instead of 101: ${name} has no WebSocket at this path`;
}
