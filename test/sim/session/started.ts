import { expect } from "vitest";
import { Network } from "../network.ts";

export const KEY = new TextEncoder().encode("a key of at least sixteen bytes");
export const KEYS = { client: { psk: KEY }, server: { psk: KEY } };

export function started(...options: ConstructorParameters<typeof Network>): Network {
  const network = new Network(...options);
  network.start();
  network.advance(100);
  expect(network.client.isUp).toBe(true);
  return network;
}

export function open(network: Network, expires = true): number {
  return network.client.openAssociation(network.now, undefined, expires);
}

export function payloads(network: Network): string[] {
  return network.arrived.map(({ payload }) => payload);
}

/** Delivers the capsules to the client's lane 0 in one piece. */
export function fromServer(network: Network, ...capsules: Uint8Array[]): void {
  network.carryToClient(Buffer.concat(capsules));
}

export function datagram(context: number, payload: string): Uint8Array {
  return Buffer.from([0, payload.length + 1, context, ...Buffer.from(payload)]);
}
