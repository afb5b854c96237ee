import * as z from "zod";
import { ATYP_IPV6, isUnspecified, makeAddress } from "../../wire/socket-address.ts";
import { endpointOf, formatEndpoint, ipFamily, isHostAndPort } from "../addresses/endpoint.ts";
import { findHopProblem } from "../carriers/hop.ts";
import { findTcpWayProblem, findWayProblem } from "../carriers/way.ts";

export const listenText = z.string().transform((text, issues) => {
  const endpoint = endpointOf(text);
  const host = endpoint === undefined || endpoint.path !== undefined ? undefined : listenHost(endpoint.host);
  if (endpoint?.path !== undefined || host === undefined) {
    issues.addIssue({ code: "custom" });
    return z.NEVER;
  }
  return formatEndpoint(host, (endpoint as { port: number }).port);
});

/** @returns the IP to bind, or undefined for any name except localhost */
function listenHost(host: string): string | undefined {
  if (host === "localhost") return "127.0.0.1";
  return ipFamily(host) === undefined ? undefined : host;
}

export function isServer(text: string): boolean {
  return endpointOf(text)?.path !== undefined || isHostAndPort(text);
}

export function isUnicastIp(text: string): boolean {
  const address = ipFamily(text) === undefined || text.includes("%") ? undefined : makeAddress(text, 0);
  if (address === undefined || isUnspecified(address)) return false;
  return address[0] === ATYP_IPV6 ? address[1] !== 0xff : address[1] < 224;
}

export function isCarrierUrl(text: string): boolean {
  return findHopProblem(text) === undefined;
}

/** A way for TCP: one that `isOther` accepts, `ss://`, or hops separated by blanks. */
export function tcpProxy(isOther: (text: string) => boolean): z.ZodType {
  return checked((text) => {
    if (/\S\s+\S/.test(text)) return findTcpWayProblem(text);
    if (text.startsWith("ss:")) return findHopProblem(text);
    return isOther(text) ? undefined : "";
  });
}

/** Limit of ways of one kind. */
export const MAX_WAYS = 8;

/** One or several of {@link tcpProxy}. */
export function tcpProxies(isOther: (text: string) => boolean): z.ZodType {
  return z
    .preprocess(
      (value) => (typeof value === "string" ? [value] : value),
      z.array(tcpProxy(isOther)).min(1).max(MAX_WAYS),
    )
    .optional();
}

/** A carrier. */
export function hop(): z.ZodType {
  return checked(findHopProblem);
}

/** A way for lanes. */
export function way(): z.ZodType {
  return checked(findWayProblem);
}

/**
 * Text that can be wrong in more than one way.
 *
 * @param findProblem  returns the problem; empty for the option's own
 */
function checked(findProblem: (text: string) => string | undefined): z.ZodType {
  return z.string().superRefine((text, context) => {
    const problem = findProblem(text);
    if (problem === undefined) return;
    context.addIssue({ code: "custom", params: problem === "" ? undefined : { problem } });
  });
}
