import type { AddressBytes } from "../../../wire/socket-address.ts";
import {
  addressPort,
  formatAddress,
  formatHost,
  makeAddress,
  sameBytes,
} from "../../../wire/socket-address.ts";
import type { StunAnswer } from "../../../wire/stun.ts";
import {
  CHANGE_IP,
  CHANGE_PORT,
  decodeBindingAnswer,
  encodeBindingRequest,
  TRANSACTION_BYTES,
} from "../../../wire/stun.ts";
import type { Bench } from "../bench.ts";
import { finding } from "../findings.ts";
import { targetOf } from "../queries.ts";
import type { Association } from "../session.ts";
import type { Check, Result } from "./check.ts";
import { skipped } from "./check.ts";

const ATTEMPTS = 3;
const ATTEMPT_MS = 400;

type Behaviour = "endpoint-independent" | "address-dependent" | "address-and-port-dependent" | "unknown";

/** Examines the NAT in front of udp-server, and its own filter, as targets see them (RFC 5780 §4.3, §4.4). */
export const STUN_CHECK: Check<Bench> = {
  name: "stun",
  needs: [],
  async run(bench): Promise<Result> {
    const { settings, session } = bench;
    if (settings.testStun === undefined) return skipped("no STUN server: --test-stun HOST:PORT");
    const { text, address } = targetOf(settings.testStun);
    const association = session!.associate();
    try {
      const first = await ask(bench, association, address, 0);
      if (first === undefined) {
        const evidence = `none of ${ATTEMPTS} requests to ${text} was answered`;
        return { measured: `no answer from ${text}`, findings: [finding("stun-silent", [evidence])] };
      }
      const mapping = await findMapping(bench, association, address, first);
      const filtering = first.other === undefined ? "unknown" : await findFiltering(bench, address);
      const measured = `targets see ${formatAddress(first.mapped)}, mapping ${mapping}, filtering ${filtering}`;
      const isSymmetric = mapping === "address-dependent" || mapping === "address-and-port-dependent";
      return {
        measured,
        data: { mapped: formatAddress(first.mapped), mapping, filtering },
        findings: isSymmetric ? [finding("nat-symmetric", [measured])] : [],
      };
    } finally {
      association.close();
    }
  },
};

async function findMapping(
  bench: Bench,
  association: Association,
  server: AddressBytes,
  first: StunAnswer,
): Promise<Behaviour> {
  if (first.other === undefined) return "unknown";
  const otherIp = makeAddress(formatHost(first.other), addressPort(server))!;
  const second = await ask(bench, association, otherIp, 0);
  if (second === undefined) return "unknown";
  if (isSame(first.mapped, second.mapped)) return "endpoint-independent";
  const third = await ask(bench, association, first.other, 0);
  if (third === undefined) return "unknown";
  return isSame(second.mapped, third.mapped) ? "address-dependent" : "address-and-port-dependent";
}

/** Uses an association of its own, which has sent nowhere else. */
async function findFiltering(bench: Bench, server: AddressBytes): Promise<Behaviour> {
  const association = bench.session!.associate();
  try {
    if ((await ask(bench, association, server, 0)) === undefined) return "unknown";
    if ((await ask(bench, association, server, CHANGE_IP | CHANGE_PORT)) !== undefined)
      return "endpoint-independent";
    const answer = await ask(bench, association, server, CHANGE_PORT);
    return answer === undefined ? "address-and-port-dependent" : "address-dependent";
  } finally {
    association.close();
  }
}

async function ask(
  { session, system }: Bench,
  association: Association,
  server: AddressBytes,
  change: number,
): Promise<StunAnswer | undefined> {
  const transaction = system.cryptography.random(TRANSACTION_BYTES);
  const answer = () => {
    for (const heard of association.heard) {
      const decoded = heard.kind === "datagram" ? decodeBindingAnswer(heard.bytes) : undefined;
      if (decoded !== undefined && isSame(decoded.transaction, transaction)) return decoded;
    }
    return undefined;
  };
  for (let attempt = 0; attempt < ATTEMPTS && answer() === undefined; attempt++) {
    association.send(server, encodeBindingRequest(transaction, change));
    await session!.until(() => answer() !== undefined, ATTEMPT_MS);
  }
  return answer();
}

function isSame(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && sameBytes(one, 0, other, 0, one.length);
}
