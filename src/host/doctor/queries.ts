import { utf8Bytes } from "../../wire/http/http-head.ts";
import { writeUint16 } from "../../wire/network-order.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { addressPort, makeAddress } from "../../wire/socket-address.ts";
import { parseEndpoint } from "../addresses/endpoint.ts";
import type { Examined } from "./examined.ts";

export interface Target {
  readonly text: string;
  readonly address: AddressBytes;
}

const DNS_PORT = 53;
const TYPE_A = 1;
const CLASS_IN = 1;
const RECURSION_DESIRED = 0x0100;

/** @param text  a checked `HOST:PORT` */
export function targetOf(text: string): Target {
  const { host, port } = parseEndpoint(text) as { host: string; port: number };
  return { text, address: makeAddress(host, port)! };
}

/** The name server to ask: the given one, otherwise that of a forward. */
export function dnsTarget({ settings, options }: Examined): Target | undefined {
  if (settings.testDns !== undefined) return targetOf(settings.testDns);
  return options.forwards
    .map(({ target }) => targetOf(target))
    .find(({ address }) => addressPort(address) === DNS_PORT);
}

/** A DNS query for the addresses of the test's name (RFC 1035 §4.1). */
export function queryName({ settings }: Examined, id: number): Uint8Array {
  const labels = settings.testName.replace(/\.$/, "").split(".");
  const name = labels.flatMap((label) => [label.length, ...utf8Bytes(label)]);
  const query = new Uint8Array(12 + name.length + 5);
  writeUint16(query, 0, id);
  writeUint16(query, 2, RECURSION_DESIRED);
  writeUint16(query, 4, 1);
  query.set(name, 12);
  writeUint16(query, query.length - 4, TYPE_A);
  writeUint16(query, query.length - 2, CLASS_IN);
  return query;
}
