import { DIALECTS } from "../../../wire/dialects/dialects.ts";
import { formatHttpDate } from "../../../wire/http/http-date.ts";
import { Cancellation } from "../../cancellation.ts";
import type { Hop } from "../../carriers/hop.ts";
import { endpointText, hopText } from "../../carriers/hop.ts";
import type { TlsOptions } from "../../carriers/tls-options.ts";
import type { Bench } from "../bench.ts";
import { chainOf, openChain } from "../examined.ts";
import type { CodedFailure } from "../failures.ts";
import { asFailure, TLS_ALERT } from "../failures.ts";
import type { Finding, FindingCode } from "../findings.ts";
import { finding } from "../findings.ts";
import { closes, identify } from "../identify.ts";
import type { Target } from "../queries.ts";
import { dnsTarget, queryName } from "../queries.ts";
import { Session } from "../session.ts";
import { openTo } from "./carrier-check.ts";
import type { Check, Result } from "./check.ts";
import { skipped } from "./check.ts";
import { firstEndpoint } from "./name-check.ts";

/** The finding for each kind of refusal (core/refusal-hint). */
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

/** An address on which no machine listens for itself (RFC 6335: tcpmux, port 1). */
const NOWHERE = "127.0.0.1:1";

const ANY_CERTIFICATE: TlsOptions = {
  serverName: undefined,
  caFile: undefined,
  certFile: undefined,
  keyFile: undefined,
  isInsecure: true,
};

/** Opens a session by one way, as udp-local does. */
export const UPGRADE_CHECK: Check<Bench> = {
  name: "upgrade",
  needs: ["hops"],
  async run(bench): Promise<Result> {
    const { system, options } = bench;
    const session = new Session(bench);
    if (options.dialect !== undefined || options.masque !== undefined) {
      await session.host.listen();
      bench.session = session;
      return skipped(`none before the first datagram (${options.dialect ?? "MASQUE"})`);
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
        ? { ...asFailure(new Error("no answer arrived")), code: "ERR_HANDSHAKE_TIMEOUT" }
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
      const isBad = failure.kind === "bad-request";
      const code =
        isBad && (await speaksTls(bench))
          ? "tls-expected"
          : isBad && (await wantsCertificate(bench))
            ? "tls-refused"
            : (REFUSALS[failure.kind ?? ""] ?? "upgrade-not-passed");
      const by = failure.server === undefined ? undefined : `it passes through ${failure.server}`;
      return finding(code, [told, by], values);
    }
    case "ERR_KEY_REFUSED":
      return finding(failure.kind === "expired" ? "key-expired" : "key-name", [told], values);
    case "ERR_SERVER_PROOF":
      return finding("key-unproven", [told], values);
    case "ERR_SHADOWSOCKS_TAG":
    case "ERR_SHADOWSOCKS_MALFORMED":
    case "ERR_OBFS_MALFORMED": {
      const code = failure.code === "ERR_OBFS_MALFORMED" ? "obfs-mismatch" : "shadowsocks-key";
      return (await identifyHop(bench, shadowsocks!, told)) ?? finding(code, [told], values);
    }
    // In TLS 1.3, the refusal of a certificate comes after the handshake.
    case TLS_ALERT:
      return finding("tls-refused", [told], values);
    default:
  }
  if (/expects TLS/.test(failure.text)) return finding("tls-expected", [told], values);
  const isSilent = failure.code === "ERR_HANDSHAKE_TIMEOUT";
  const silent = isSilent && shadowsocks?.kind === "ss" ? shadowsocks : undefined;
  const [identity, isTls, other, isPassed] = await Promise.all([
    identify(bench.system, () => openChain(bench)),
    speaksTls(bench),
    silent && identifyHop(bench, silent, told),
    silent && passes(bench, silent),
  ]);
  if (identity !== undefined) {
    const code = identity.kind === "tls" ? "tls-expected" : "other-server";
    return finding(
      code,
      [`${identity.what} answers at ${values.server}: ${identity.evidence}`, told],
      values,
    );
  }
  if (isTls) return finding("tls-expected", ["it answers with TLS", told], values);
  if (other !== undefined) return other;
  const dialect = await findDialect(bench);
  if (dialect !== undefined) {
    const evidence = `it answers a DNS query in the format of ${dialect}`;
    return finding("other-dialect", [evidence, told], { ...values, dialect });
  }
  if (silent !== undefined && isPassed === false) {
    const { method } = silent.shadowsocks;
    const clock = `the clock of this machine: ${formatHttpDate(bench.system.unixMs())}`;
    const nothing = `nothing comes back from ${hopText(silent)}`;
    return method.is2022
      ? finding("shadowsocks-clock", [nothing, clock], values)
      : finding("shadowsocks-silent", [nothing], values);
  }
  return finding(isSilent ? "no-answer" : "closed-unanswered", [told, relayEvidence(bench)], values);
}

/** Whether a web server behind TLS refuses requests without a client certificate, as nginx does after the handshake. */
async function wantsCertificate(bench: Bench): Promise<boolean> {
  const { hops } = chainOf(bench);
  if (!hops.some((hop) => hop.kind === "tls" || hop.kind === "ws")) return false;
  const identity = await identify(bench.system, () => openChain(bench));
  return /SSL certificate/i.test(identity?.answer ?? "");
}

function indexOf(bench: Bench, hop: Hop): number {
  return chainOf(bench).hops.findLastIndex(({ kind }) => kind === hop.kind);
}

/** Identifies a program that answers in place of the hop's own. */
async function identifyHop(bench: Bench, hop: Hop, told: string): Promise<Finding | undefined> {
  const index = indexOf(bench, hop);
  const server = endpointText(hop.endpoint!);
  const identity = await identify(bench.system, () => openTo(bench, index, server));
  if (identity === undefined) return undefined;
  const evidence = [`${identity.what} answers there: ${identity.evidence}`, told];
  return finding("proxy-protocol", evidence, { hop: hopText(hop) });
}

/** Whether a shadowsocks server accepts the sent bytes: one that does not stays silent, regardless of the target. */
async function passes(bench: Bench, hop: Hop): Promise<boolean> {
  const index = indexOf(bench, hop);
  return closes(bench.system, openTo(bench, index + 1, NOWHERE));
}

/** Whether the server speaks TLS although the options do not ask for it. */
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

/** The program of this machine that the first connection reaches. */
function relayEvidence(bench: Bench): string | undefined {
  const first = firstEndpoint(chainOf(bench));
  if (first.path !== undefined || !/^(?:127\.|::1$|localhost$)/.test(first.host)) return undefined;
  const program = bench.findListener(first.port);
  return program && `${program.name} (PID ${program.pid}) listens there, and relays to whatever is behind it`;
}

/** Tries each dialect; one without addresses asks the server's own target. */
async function findDialect(bench: Bench): Promise<string | undefined> {
  const target = dnsTarget(bench);
  if (target === undefined) return undefined;
  const answers = await Promise.all(DIALECTS.map(({ name }) => answersIn(bench, name, target)));
  return DIALECTS.find((_, index) => answers[index])?.name;
}

async function answersIn(bench: Bench, dialect: string, target: Target): Promise<boolean> {
  const session = new Session(bench, dialect);
  try {
    await session.host.listen();
    const association = session.associate();
    association.send(target.address, queryName(bench, 1));
    const isAnswered = () => association.heard.some(({ kind }) => kind === "datagram");
    await session.until(() => isAnswered() || session.errors.length > 0, 1_000);
    return isAnswered();
  } finally {
    await session.close();
  }
}
