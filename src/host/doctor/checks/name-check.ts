import { ipFamily } from "../../addresses/endpoint.ts";
import { Cancellation } from "../../cancellation.ts";
import type { CarrierChain } from "../../carriers/carrier-chain.ts";
import { resolveHost } from "../../carriers/happy-eyeballs.ts";
import type { Bench } from "../bench.ts";
import { chainOf } from "../examined.ts";
import { finding } from "../findings.ts";
import type { Check, Result } from "./check.ts";

/** The destination of a way's first connection. */
export function firstEndpoint({ hops, endpoint }: CarrierChain) {
  return hops.find((hop) => hop.endpoint !== undefined)?.endpoint ?? endpoint;
}

export const NAME_CHECK: Check<Bench> = {
  name: "name",
  needs: [],
  async run(bench): Promise<Result> {
    const first = firstEndpoint(chainOf(bench));
    if (first.path !== undefined) return { measured: `${first.path} is a Unix socket` };
    if (ipFamily(first.host) !== undefined) {
      bench.addresses = [first.host];
      return { measured: `${first.host} is an address` };
    }
    const deadline = new Cancellation().within(bench.system, bench.settings.testTimeoutMs);
    try {
      bench.addresses = await resolveHost(bench.system, first.host, deadline);
      return {
        measured: `${first.host} is ${bench.addresses.join(", ")}`,
        data: { addresses: bench.addresses },
      };
    } catch (error) {
      const { code = "", message } = error as Error & { code?: string };
      const isSilent = deadline.isExpired || code === "EAI_AGAIN" || code === "ETIMEOUT";
      const servers = bench.system.nameservers().join(", ") || "none";
      return {
        measured: `${first.host} has no address`,
        findings: [
          finding(isSilent ? "name-server-silent" : "name-unknown", [
            `looking up ${first.host}: ${deadline.isExpired ? `no answer within ${bench.settings.testTimeoutMs} ms` : message}`,
            `resolvers of this machine: ${servers}`,
          ]),
        ],
      };
    } finally {
      deadline.release();
    }
  },
};
