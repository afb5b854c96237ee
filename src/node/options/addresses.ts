import { isIP } from "node:net";
import * as z from "zod";
import { ATYP_IPV6, isUnspecified, makeAddress } from "../../wire/socket-address.ts";
import { findHopProblem } from "../carriers/hop.ts";
import type { Endpoint } from "../endpoint.ts";
import { formatEndpoint, parseEndpoint, splitZone } from "../endpoint.ts";

export const listenText = z.string().transform((text, issues) => {
  const endpoint = endpointOf(text);
  const host = endpoint === undefined || endpoint.path !== undefined ? undefined : listenHost(endpoint.host);
  if (endpoint?.path !== undefined || host === undefined) {
    issues.addIssue({ code: "custom" });
    return z.NEVER;
  }
  return formatEndpoint(host, (endpoint as { port: number }).port);
});

/** @returns the IP to bind, or undefined for another name than localhost */
function listenHost(host: string): string | undefined {
  if (host === "localhost") return "127.0.0.1";
  return isIP(host) === 0 ? undefined : host;
}

export function endpointOf(text: string): Endpoint | undefined {
  try {
    return parseEndpoint(text);
  } catch {
    return undefined;
  }
}

export function isHostAndPort(text: string): boolean {
  const endpoint = endpointOf(text);
  if (endpoint === undefined || endpoint.path !== undefined || endpoint.port === 0) return false;
  return makeAddress(splitZone(endpoint.host).ip, endpoint.port) !== undefined;
}

export function isServer(text: string): boolean {
  return endpointOf(text)?.path !== undefined || isHostAndPort(text);
}

export function isUnicastIp(text: string): boolean {
  const address = isIP(text) === 0 || text.includes("%") ? undefined : makeAddress(text, 0);
  if (address === undefined || isUnspecified(address)) return false;
  return address[0] === ATYP_IPV6 ? address[1] !== 0xff : address[1] < 224;
}

export function isCarrierUrl(text: string): boolean {
  return findHopProblem(text) === undefined;
}

/** A server for TCP: one that `isOther` accepts, or `ss://`, which has more than one way to be wrong. */
export function tcpProxy(isOther: (text: string) => boolean): z.ZodType {
  return z.string().superRefine((text, context) => {
    const isShadowsocks = text.startsWith("ss:");
    const problem = isShadowsocks ? findHopProblem(text) : undefined;
    if (problem !== undefined) context.addIssue({ code: "custom", params: { problem } });
    else if (!isShadowsocks && !isOther(text)) context.addIssue({ code: "custom" });
  });
}

/** A carrier, which has more than one way to be wrong. */
export function hop(): z.ZodType {
  return z.string().superRefine((text, context) => {
    const problem = findHopProblem(text);
    if (problem !== undefined) context.addIssue({ code: "custom", params: { problem } });
  });
}
