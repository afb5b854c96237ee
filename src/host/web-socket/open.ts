import { WebSocketHandshake } from "../../core/web-socket/client-handshake.ts";
import { encodeBase64 } from "../../wire/base64.ts";
import { encodeWebSocketAnswer } from "../../wire/http/websocket-upgrade.ts";
import type { Cancellation } from "../cancellation.ts";
import { shakeHands } from "../carriers/proxy.ts";
import type { WebSocketRequest } from "../carriers/web-socket-request.ts";
import type { ByteStream } from "../stream/byte-stream.ts";
import type { System } from "../system.ts";
import { acceptOf } from "./accept-key.ts";
import { WebSocketByteStream } from "./byte-stream-web-socket.ts";

const KEY_BYTES = 16;

/**
 * Opens a WebSocket on a stream to a web server, which it takes over.
 *
 * @returns a stream to be handed on
 * @throws Error with the reason; the stream is then destroyed
 */
export async function openWebSocket(
  system: System,
  stream: ByteStream,
  request: WebSocketRequest,
  cancellation: Cancellation,
): Promise<ByteStream> {
  const key = encodeBase64(system.cryptography.random(KEY_BYTES));
  await shakeHands(stream, new WebSocketHandshake(request, key, acceptOf(key)), cancellation);
  return new WebSocketByteStream(system, stream, false);
}

/**
 * Makes a WebSocket from a connection, which it takes over.
 *
 * @param key      that of the request
 * @param surplus  bytes after the request
 */
export function acceptWebSocket(
  system: System,
  stream: ByteStream,
  key: string,
  surplus: Uint8Array,
): ByteStream {
  stream.unread(surplus);
  return new WebSocketByteStream(system, stream, true, encodeWebSocketAnswer(acceptOf(key)));
}
