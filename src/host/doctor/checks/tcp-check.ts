import { Cancellation } from "../../cancellation.ts";
import { endpointText } from "../../carriers/hop.ts";
import { connectStream } from "../../carriers/socket.ts";
import type { Bench } from "../bench.ts";
import { chainOf, outgoing } from "../examined.ts";
import type { Finding, FindingCode } from "../findings.ts";
import { finding } from "../findings.ts";
import type { Check, Result } from "./check.ts";
import { firstEndpoint } from "./name-check.ts";

interface Attempt {
  readonly address: string;
  readonly ms: number;
  /** Undefined if it succeeded. */
  readonly failure: string | undefined;
  readonly isSilent: boolean;
}

/** Connects to each address separately. */
export const TCP_CHECK: Check<Bench> = {
  name: "tcp",
  needs: ["name"],
  async run(bench): Promise<Result> {
    const first = firstEndpoint(chainOf(bench));
    const endpoints =
      first.path === undefined ? bench.addresses.map((host) => ({ host, port: first.port })) : [first];
    const attempts = await Promise.all(endpoints.map((endpoint) => attempt(bench, endpoint)));
    const working = attempts.find(({ failure }) => failure === undefined);
    const dead = attempts.filter(({ failure }) => failure !== undefined);
    const findings =
      working === undefined
        ? [failureOf(dead[0], attempts, first.path !== undefined)]
        : dead.map((one) =>
            finding("address-dead", [describe(one), describe(working)], { address: working.address }),
          );
    const data = { attempts: attempts.map(({ isSilent: _, ...rest }) => rest) };
    return { measured: attempts.map(describe).join("; "), data, findings };
  },
};

async function attempt(bench: Bench, endpoint: Parameters<typeof connectStream>[1]): Promise<Attempt> {
  const { system, settings } = bench;
  const address = endpointText(endpoint);
  const deadline = new Cancellation().within(system, settings.testTimeoutMs);
  const from = system.now();
  const done = (failure: string | undefined): Attempt => ({
    address,
    ms: Math.round((system.now() - from) * 10) / 10,
    failure,
    isSilent: deadline.isExpired,
  });
  try {
    const stream = await connectStream(system, endpoint, outgoing(bench), deadline);
    stream.destroy();
    return done(undefined);
  } catch (error) {
    return done(
      deadline.isExpired ? `no answer within ${settings.testTimeoutMs} ms` : (error as Error).message,
    );
  } finally {
    deadline.release();
  }
}

function describe({ address, ms, failure }: Attempt): string {
  return failure === undefined ? `${address} connects in ${ms} ms` : `${address}: ${failure}`;
}

/** The finding if nothing connects. */
function failureOf(one: Attempt, all: readonly Attempt[], isUnix: boolean): Finding {
  const code = isUnix ? "socket-missing" : codeOf(one);
  const port = /\d+$/.exec(one.address)?.[0] ?? "";
  const host = one.address.replace(/:\d+$/, "").replace(/[[\]]/g, "");
  return finding(code, all.map(describe), { address: one.address, host, port });
}

function codeOf({ failure = "", isSilent }: Attempt): FindingCode {
  if (isSilent || /ETIMEDOUT/.test(failure)) return "tcp-silent";
  if (/EMFILE|ENFILE/.test(failure)) return "descriptors-full";
  if (/ENODEV/.test(failure)) return "interface-missing";
  return /ECONNREFUSED|ECONNRESET/.test(failure) ? "tcp-refused" : "tcp-unreachable";
}
