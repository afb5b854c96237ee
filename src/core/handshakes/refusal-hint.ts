import type { HttpHead } from "../../wire/http/http-head.ts";
import { singleField } from "../../wire/http/http-head.ts";
import { isOwnRefusal } from "../../wire/http/upgrade.ts";
import type { PeerAnswer } from "../errors.ts";

/** Most characters of a field of the answer in a message. */
const MAX_QUOTE = 100;

/** The meaning of a refused upgrade. The first five come from udp-server itself, the others from what is in front of it. */
export type RefusalKind =
  | "other-key"
  | "wants-key"
  | "repeated"
  | "limit"
  | "changed"
  | "no-upgrade"
  | "redirect"
  | "bad-request"
  | "wants-password"
  | "forbidden"
  | "no-path"
  | "server-down"
  | "unknown";

/** A refusal, in words and as a kind. */
export interface Refusal {
  readonly text: string;
  readonly answer: PeerAnswer & { readonly kind: RefusalKind };
}

/**
 * Explains why an upgrade was refused, as far as the head of the answer shows, since the server reveals no more than any web server.
 *
 * @param hasKey    whether the request had a MAC
 * @param isProven  whether the server has shown that it accepts this key
 */
export function explainRefusal(head: HttpHead, status: number, hasKey: boolean, isProven: boolean): Refusal {
  const server = (singleField(head, "server") ?? singleField(head, "via"))?.slice(0, MAX_QUOTE);
  const refusal = isOwnRefusal(head, status)
    ? ownRefusal(status, server, hasKey, isProven)
    : foreignRefusal(head, status, server ?? "the program that answers there");
  return { text: refusal[1], answer: { status, kind: refusal[0], server } };
}

function foreignRefusal(head: HttpHead, status: number, who: string): [RefusalKind, string] {
  if (status < 300) {
    return [
      "no-upgrade",
      `${who} does not upgrade: it is not a udp-server, or does not pass Upgrade on to one`,
    ];
  }
  if (status < 400) {
    return [
      "redirect",
      `${who} redirects to ${(singleField(head, "location") ?? "nowhere").slice(0, MAX_QUOTE)}`,
    ];
  }
  switch (status) {
    case 400:
      return ["bad-request", `${who} rejects the request: does it expect TLS (tls://)?`];
    case 401:
      return ["wants-password", `${who} asks for a user name and a password`];
    case 403:
      return ["forbidden", `${who} forbids the request`];
    case 404:
      return ["no-path", `${who} has no udp-server at this path`];
    case 502:
    case 503:
    case 504:
      return ["server-down", `${who} does not reach udp-server`];
    default:
      return ["unknown", `${who} does not pass the upgrade on`];
  }
}

function ownRefusal(
  status: number,
  proxy: string | undefined,
  hasKey: boolean,
  isProven: boolean,
): [RefusalKind, string] {
  switch (status) {
    case 404:
      if (isProven) {
        return [
          "repeated",
          "the server has seen this request before: does something on the way repeat requests?",
        ];
      }
      return hasKey
        ? ["other-key", "the server has another key"]
        : ["wants-key", "the server requires a key"];
    case 503:
      return ["limit", "the server is at one of its limits, or shuts down"];
    default: {
      const who = proxy ?? "something on the way";
      return ["changed", `${who} rewrites the path, or does not pass Upgrade and Connection on`];
    }
  }
}
