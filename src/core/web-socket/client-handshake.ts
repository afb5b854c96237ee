import { decodeHead, isInterim, singleField, statusOf } from "../../wire/http/http-head.ts";
import { encodeWebSocketRequest, opensWebSocket } from "../../wire/http/websocket-upgrade.ts";
import { copyOf } from "../../wire/socket-address.ts";
import { ProtocolError } from "../errors.ts";
import type { ConnectHandshake, ConnectResult } from "../handshakes/connect-handshake.ts";
import { HeadBuffer } from "../handshakes/head-buffer.ts";
import type { HeaderField } from "../handshakes/http-connect.ts";

const MAX_SERVER_LENGTH = 64;

/** Opens a WebSocket as the client (RFC 6455 §4.1). Frames follow the handshake. */
export class WebSocketHandshake implements ConnectHandshake {
  readonly #request: Uint8Array;
  readonly #accept: string;
  readonly #head = new HeadBuffer();

  /** @param key  16 random bytes in base64 @param accept  the expected answer to it */
  constructor(
    request: { readonly path: string; readonly host: string; readonly fields: readonly HeaderField[] },
    key: string,
    accept: string,
  ) {
    this.#request = encodeWebSocketRequest(request.path, request.host, request.fields, key);
    this.#accept = accept;
  }

  start(): Uint8Array {
    return this.#request;
  }

  handleStream(bytes: Uint8Array): "need" | ConnectResult {
    for (let at = 0; ; ) {
      at = this.#head.take(bytes, at, bytes.length);
      if (at === -1) return "need";
      if (at === -2) return refused("its answer is over the limit");
      const head = decodeHead(this.#head.bytes, this.#head.length);
      const status = head === undefined ? undefined : statusOf(head);
      if (head === undefined || status === undefined) return refused("is this a web server?");
      if (!isInterim(status)) {
        if (status !== 101)
          return refused(`status ${status} instead of 101: ${nameOf(head)} has no WebSocket at this path`);
        if (!opensWebSocket(head, this.#accept)) return refused("a 101, but not to this request");
        return { kind: "connected", surplus: copyOf(bytes, at, bytes.length - at) };
      }
      if (!this.#head.clearInterim()) return refused("too many interim responses");
    }
  }
}

function nameOf(head: Parameters<typeof singleField>[0]): string {
  return singleField(head, "server")?.slice(0, MAX_SERVER_LENGTH) ?? "it";
}

function refused(detail: string): ConnectResult {
  return { kind: "failed", error: new ProtocolError("ERR_WEB_SOCKET_REFUSED", detail) };
}
