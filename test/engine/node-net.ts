// Stands in for node:net in the engine: recognises IP texts by ipaddr.js.
import ipaddr from "ipaddr.js";

export function isIPv4(text: string): boolean {
  return ipaddr.IPv4.isValidFourPartDecimal(text);
}

export function isIPv6(text: string): boolean {
  return ipaddr.IPv6.isValid(text);
}

export function isIP(text: string): 0 | 4 | 6 {
  if (isIPv4(text)) return 4;
  return isIPv6(text) ? 6 : 0;
}
