import type { UnreachableKind } from "../../../wire/capsule.ts";
import { readUint16 } from "../../../wire/network-order.ts";
import type { Bench } from "../bench.ts";
import type { Finding, FindingCode } from "../findings.ts";
import { finding } from "../findings.ts";
import type { Target } from "../queries.ts";
import { dnsTarget, queryName } from "../queries.ts";
import type { Heard } from "../session.ts";
import type { Check, Result } from "./check.ts";
import { skipped } from "./check.ts";

const ATTEMPTS = 3;
const HEADER_BYTES = 12;
/** RFC 1035 §4.1.1. */
const RCODES = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];

/** A DNS query through the tunnel. */
export const DNS_CHECK: Check<Bench> = {
  name: "dns",
  needs: [],
  async run(bench): Promise<Result> {
    const { session, settings, system } = bench;
    const target = dnsTarget(bench);
    if (target === undefined) return skipped("no name server: --test-dns HOST:PORT");
    const association = session!.associate();
    const from = system.now();
    try {
      for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
        association.send(target.address, queryName(bench, attempt));
        const answer = () => association.heard.find(isAnswer);
        await session!.until(
          () => answer() !== undefined || refusalOf(association.heard) !== undefined,
          settings.testTimeoutMs / ATTEMPTS,
        );
        const refusal = refusalOf(association.heard);
        if (refusal !== undefined) {
          return { measured: `${target.text} refused`, findings: [unreachable(refusal, target)] };
        }
        const found = answer();
        if (found === undefined) continue;
        const ms = Math.round((found.at - from) * 10) / 10;
        const rcode = found.bytes[3] & 0x0f;
        const name = RCODES[rcode] ?? String(rcode);
        const measured = `${target.text} answers ${name} for ${settings.testName} in ${ms} ms`;
        // An answer that the name does not exist is an answer too.
        const isFine = rcode === 0 || rcode === 3;
        return {
          measured,
          data: { ms, rcode: name },
          findings: isFine ? [] : [finding("dns-error", [measured], { target: target.text })],
        };
      }
      const evidence = [
        `none of ${ATTEMPTS} queries to ${target.text} was answered within ${settings.testTimeoutMs} ms`,
        session!.host.core.rttMs === undefined
          ? undefined
          : "the tunnel itself works: heartbeats are answered",
        session!.errors.length === 0 ? undefined : session!.errors.at(-1)!.message,
      ];
      return {
        measured: `no answer from ${target.text}`,
        findings: [finding("dns-silent", evidence, { target: target.text })],
      };
    } finally {
      association.close();
    }
  },
};

function isAnswer(heard: Heard): heard is Extract<Heard, { kind: "datagram" }> {
  if (heard.kind !== "datagram" || heard.bytes.length < HEADER_BYTES) return false;
  const id = readUint16(heard.bytes, 0);
  return id >= 1 && id <= ATTEMPTS && (heard.bytes[2] & 0x80) !== 0;
}

/** Why datagrams do not reach the target; too-big is not a refusal. */
export function refusalOf(heard: readonly Heard[]): UnreachableKind | undefined {
  for (const one of heard) if (one.kind === "unreachable" && one.reason !== "too-big") return one.reason;
  return undefined;
}

/** The finding for such a refusal. */
export function unreachable(reason: UnreachableKind, { text }: Target): Finding {
  const code: FindingCode =
    reason === "prohibited" ? "target-private" : reason === "port" ? "target-closed" : "target-unreachable";
  const from = reason === "prohibited" ? "udp-server refuses the target" : "udp-server reports an ICMP error";
  const host = text.replace(/:\d+$/, "").replace(/[[\]]/g, "");
  return finding(code, [`${from} for ${text}: ${reason}`], {
    target: code === "target-private" ? host : text,
    host,
  });
}
