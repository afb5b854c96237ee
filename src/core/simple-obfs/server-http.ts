import { encodeBase64 } from "../../wire/base64.ts";
import type { HttpHead } from "../../wire/http/http-head.ts";
import { asciiBytes, fieldHasToken } from "../../wire/http/http-head.ts";
import { ObfsHttp } from "./obfs-http.ts";

/** simple-obfs `http` at the server. */
export class ObfsHttpServer extends ObfsHttp {
  readonly hasStarted = true;
  readonly #random: (length: number) => Uint8Array;
  readonly #httpDate: () => string;

  /** @param httpDate  returns the time as in a Date field */
  constructor(random: (length: number) => Uint8Array, httpDate: () => string) {
    super();
    this.#random = random;
    this.#httpDate = httpDate;
  }

  get mayEnd(): boolean {
    return this.head === undefined;
  }

  protected override makeHead(): Uint8Array {
    return asciiBytes(
      `HTTP/1.1 101 Switching Protocols\r\nServer: nginx\r\nDate: ${this.#httpDate()}\r\nUpgrade: websocket\r\n` +
        `Connection: Upgrade\r\nSec-WebSocket-Accept: ${encodeBase64(this.#random(16))}\r\n\r\n`,
    );
  }

  protected override findFault(head: HttpHead | undefined): string | undefined {
    return head !== undefined && fieldHasToken(head, "upgrade", "websocket")
      ? undefined
      : "no request for a WebSocket";
  }
}
