import type { HttpHead } from "../wire/http-head.ts";
import { singleField } from "../wire/http-head.ts";
import { isOwnRefusal } from "../wire/upgrade.ts";

/** How much of a field of the answer is shown, in characters. */
const MAX_QUOTE = 100;

/**
 * Why an upgrade was refused, as far as the head of the answer shows, as the server reveals no more than any web server.
 *
 * @param hasKey    whether the request had a MAC
 * @param isProven  whether the server has shown that it accepts this key
 */
export function refusalHint(head: HttpHead, status: number, hasKey: boolean, isProven: boolean): string {
  const proxy = (singleField(head, "server") ?? singleField(head, "via"))?.slice(0, MAX_QUOTE);
  const who = proxy ?? "what answers there";
  if (isOwnRefusal(head, status)) return ownRefusalHint(status, proxy, hasKey, isProven);
  if (status < 300) return `${who} does not upgrade: it is no udp-server, or does not pass Upgrade on to one`;
  if (status < 400) {
    return `${who} redirects to ${(singleField(head, "location") ?? "nowhere").slice(0, MAX_QUOTE)}`;
  }
  switch (status) {
    case 400:
      return `${who} does not take the request: does it expect TLS (tls://)?`;
    case 401:
      return `${who} asks for a user name and a password`;
    case 403:
      return `${who} forbids it`;
    case 404:
      return `${who} has no udp-server at this path`;
    case 502:
    case 503:
    case 504:
      return `${who} does not reach udp-server`;
    default:
      return `${who} does not pass the upgrade on`;
  }
}

function ownRefusalHint(
  status: number,
  proxy: string | undefined,
  hasKey: boolean,
  isProven: boolean,
): string {
  switch (status) {
    case 404: {
      if (isProven)
        return "the server has seen this request before: does something on the way repeat requests?";
      const key = hasKey ? "the server has another key" : "the server wants a key";
      return proxy === undefined ? key : `${key}, or ${proxy} does not pass Upgrade and Connection on`;
    }
    case 503:
      return "the server is at one of its limits";
    default:
      return "the request did not arrive as it was sent";
  }
}
