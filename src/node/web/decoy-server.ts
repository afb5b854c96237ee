import type { IncomingHttpHeaders, RequestOptions } from "node:http";
import { request as requestHttp } from "node:http";
import { request as requestHttps } from "node:https";
import { pipeline } from "node:stream";
import type { AnswerStranger } from "./decoy.ts";
import { answerStatus } from "./status-page.ts";

/** How long the web server may be silent, in milliseconds. */
const SILENCE_MS = 15_000;
/** Fields that apply to one connection (RFC 9110 §7.6.1), besides those that Connection names. */
const HOP_BY_HOP = [
  ...["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"],
  ...["proxy-authorization", "proxy-authenticate", "expect"],
];

/** A segment `..` of a path, also in encodings and with the parameters that servers remove before they resolve it. */
const PARENT_SEGMENT = /(?:[/\\]|%2f|%5c)(?:\.|%2e){2}(?:[/\\;?#]|%2f|%5c|%3b|$)/i;

/** Passes requests on to a web server, each on a connection of its own, as if `url` were the root. */
export function serverDecoy(url: URL): AnswerStranger {
  const send = url.protocol === "https:" ? requestHttps : requestHttp;
  const prefix = url.pathname.replace(/\/$/, "");
  return (request, response) => {
    const given = (request.url ?? "/").replace(/^https?:\/\/[^/]*/i, "");
    const path = given.startsWith("/") ? given : `/${given}`;
    if (prefix !== "" && PARENT_SEGMENT.test(path.replace(/\?.*$/s, ""))) {
      answerStatus(response, 404);
      return;
    }
    const options: RequestOptions = {
      method: request.method,
      path: prefix + path,
      headers: { ...endToEnd(request.headers), ...framing(request.headers), host: url.host },
      agent: false,
      timeout: SILENCE_MS,
    };
    const outgoing = send(url, options);
    const fail = () => {
      outgoing.destroy();
      answerStatus(response, 502);
    };
    outgoing.on("error", fail);
    outgoing.on("timeout", fail);
    // A server that upgrades was not asked to.
    outgoing.on("upgrade", fail);
    outgoing.on("response", (answer) => {
      response.writeHead(answer.statusCode!, answer.statusMessage, endToEnd(answer.headers));
      pipeline(answer, response, () => {});
    });
    response.on("close", () => outgoing.destroy());
    pipeline(request, outgoing, () => {});
  };
}

/** What delimits the content. Without it, the web server might take the content of a GET for another request. */
function framing(headers: IncomingHttpHeaders): IncomingHttpHeaders {
  if (headers["transfer-encoding"] !== undefined) return { "transfer-encoding": "chunked" };
  const length = headers["content-length"];
  return length === undefined ? {} : { "content-length": length };
}

function endToEnd(headers: IncomingHttpHeaders): IncomingHttpHeaders {
  const named = (headers.connection ?? "").split(",").map((name) => name.trim().toLowerCase());
  const isEndToEnd = ([name]: [string, unknown]) => !HOP_BY_HOP.includes(name) && !named.includes(name);
  return Object.fromEntries(Object.entries(headers).filter(isEndToEnd));
}
