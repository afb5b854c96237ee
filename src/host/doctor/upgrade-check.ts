import { DIALECTS } from "../../wire/dialects/dialects.ts";
import { formatHttpDate } from "../../wire/http/http-date.ts";
import { Cancellation } from "../cancellation.ts";
import { endpointText, hopText } from "../carriers/hop.ts";
import type { TlsOptions } from "../carriers/tls-options.ts";
import type { Bench } from "./bench.ts";
import type { Check, Result } from "./check.ts";
import { skipped } from "./check.ts";
import { chainOf, openChain } from "./examined.ts";
import type { CodedFailure } from "./failures.ts";
import { asFailure } from "./failures.ts";
import type { Finding, FindingCode } from "./findings.ts";
import { finding } from "./findings.ts";
import { identify } from "./identify.ts";
import { firstEndpoint } from "./name-check.ts";
import { dnsTarget, queryName } from "./queries.ts";
import { Session } from "./session.ts";

/** What a refusal means, by its kind (core/refusal-hint). */
const REFUSALS: Readonly<Record<string, FindingCode>> = {
  "other-key": "key-wrong",
  "wants-key": "key-missing",
  repeated: "requests-repeated",
  limit: "server-limit",
  changed: "request-changed",
  "no-upgrade": "upgrade-not-passed",
  redirect: "redirected",
  "bad-request": "upgrade-not-passed",
  "wants-password": "web-forbidden",
  forbidden: "web-forbidden",
  "no-path": "path-unknown",
  "server-down": "server-down",
  unknown: "upgrade-not-passed",
};

const ANY_CERTIFICATE: TlsOptions = {
  serverName: undefined,
  caFile: undefined,
  certFile: undefined,
  keyFile: undefined,
  isInsecure: true,
};

/** Opens a session, as udp-local does, by one way. */
export const UPGRADE_CHECK: Check<Bench> = {
  name: "upgrade",
  needs: ["hops"],
  async run(bench): Promise<Result> {
    const { system, options } = bench;
    const session = new Session(bench);
    if (options.dialect !== undefined || options.masque !== undefined) {
      await session.host.listen();
      bench.session = session;
      return skipped(`none before datagrams go (${options.dialect ?? "MASQUE"})`);
    }
    const from = system.now();
    if (await session.open()) {
      bench.session = session;
      const ms = Math.round((system.now() - from) * 10) / 10;
      const proof = options.psk === undefined ? "no key" : "the key is proven both ways";
      return { measured: `session up in ${ms} ms, ${proof}`, data: { upMs: ms } };
    }
    const error = session.errors[0];
    await session.close();
    const failure =
      error === undefined
        ? { ...asFailure(new Error("nothing happened")), code: "ERR_HANDSHAKE_TIMEOUT" }
        : asFailure(error);
    return { measured: `no session: ${failure.text}`, findings: [await judge(bench, failure)] };
  },
};

async function judge(bench: Bench, failure: CodedFailure): Promise<Finding> {
  const { hops, endpoint } = chainOf(bench);
  const values = { server: endpointText(endpoint) };
  const told = `the answer to the upgrade: ${failure.text}`;
  const shadowsocks = hops.findLast(({ kind }) => kind === "ss");
  switch (failure.code) {
    case "ERR_UPGRADE_REFUSED": {
      if (failure.status === undefined) {
        return finding(/extension/.test(failure.text) ? "no-extension" : "requests-repeated", [told], values);
      }
      const isTls = failure.kind === "bad-request" && (await speaksTls(bench));
      const code = isTls ? "tls-expected" : (REFUSALS[failure.kind ?? ""] ?? "upgrade-not-passed");
      const by = failure.server === undefined ? undefined : `it passes ${failure.server}`;
      return finding(code, [told, by], values);
    }
    case "ERR_KEY_REFUSED":
      return finding(failure.kind === "expired" ? "key-expired" : "key-name", [told], values);
    case "ERR_SERVER_PROOF":
      return finding("key-unproven", [told], values);
    case "ERR_SHADOWSOCKS_TAG":
    case "ERR_SHADOWSOCKS_MALFORMED":
      return finding("shadowsocks-key", [told], values);
    case "ERR_OBFS_MALFORMED":
      return finding("obfs-mismatch", [told], values);
    default:
  }
  if (/expects TLS/.test(failure.text)) return finding("tls-expected", [told], values);
  const isSilent = failure.code === "ERR_HANDSHAKE_TIMEOUT";
  const identity = await identify(bench.system, () => openChain(bench));
  if (identity !== undefined) {
    const code = identity.kind === "tls" ? "tls-expected" : "other-server";
    return finding(
      code,
      [`${identity.what} answers at ${values.server}: ${identity.evidence}`, told],
      values,
    );
  }
  if (await speaksTls(bench)) return finding("tls-expected", ["it answers in TLS", told], values);
  const dialect = await findDialect(bench);
  if (dialect !== undefined) {
    const evidence = `a DNS query in the format of ${dialect} is answered`;
    return finding("other-dialect", [evidence, told], { ...values, dialect });
  }
  if (shadowsocks?.kind === "ss" && isSilent) {
    const { method } = shadowsocks.shadowsocks;
    const clock = `the clock of this machine: ${formatHttpDate(bench.system.unixMs())}`;
    return method.is2022
      ? finding("shadowsocks-clock", [`nothing comes back from ${hopText(shadowsocks)}`, clock], values)
      : finding("shadowsocks-silent", [`nothing comes back from ${hopText(shadowsocks)}`], values);
  }
  return finding(isSilent ? "no-answer" : "closed-unanswered", [told, relayEvidence(bench)], values);
}

/** Whether TLS is spoken where it is not asked for. */
async function speaksTls(bench: Bench): Promise<boolean> {
  const { system } = bench;
  const { endpoint } = chainOf(bench);
  if (system.wrapTls === undefined) return false;
  const carrier = openChain(bench);
  const deadline = new Cancellation().within(system, bench.settings.testTimeoutMs);
  try {
    const { stream } = await carrier.connect(deadline);
    const host = endpoint.path === undefined ? endpoint.host : "localhost";
    const secure = await system.wrapTls(stream, ANY_CERTIFICATE, host, deadline);
    secure.stream.destroy();
    return true;
  } catch {
    return false;
  } finally {
    deadline.release();
    await carrier.close();
  }
}

/** Which program of this machine the first connection reaches. */
function relayEvidence(bench: Bench): string | undefined {
  const first = firstEndpoint(chainOf(bench));
  if (first.path !== undefined || !/^(?:127\.|::1$|localhost$)/.test(first.host)) return undefined;
  const program = bench.findListener(first.port);
  return program && `${program.name} (PID ${program.pid}) listens there, and answers for what is behind it`;
}

/** Asks in each dialect; one without addresses asks the target that the server has. */
async function findDialect(bench: Bench): Promise<string | undefined> {
  const target = dnsTarget(bench);
  if (target === undefined) return undefined;
  for (const { name } of DIALECTS) {
    const session = new Session(bench, name);
    try {
      await session.host.listen();
      const association = session.associate();
      association.send(target.address, queryName(bench, 1));
      const isAnswered = () => association.heard.some(({ kind }) => kind === "datagram");
      await session.until(() => isAnswered() || session.errors.length > 0, 1_000);
      if (isAnswered()) return name;
    } finally {
      await session.close();
    }
  }
  return undefined;
}
