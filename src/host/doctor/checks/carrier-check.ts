import { Cancellation } from "../../cancellation.ts";
import type { Carrier } from "../../carriers/carrier.ts";
import { openCarrierChain } from "../../carriers/carrier-chain.ts";
import type { Hop } from "../../carriers/hop.ts";
import { endpointText, hopText } from "../../carriers/hop.ts";
import type { Bench } from "../bench.ts";
import { chainOf, openChain, outgoing } from "../examined.ts";
import type { CodedFailure } from "../failures.ts";
import { asFailure } from "../failures.ts";
import type { Finding, FindingCode } from "../findings.ts";
import { finding } from "../findings.ts";
import { identify } from "../identify.ts";
import type { Check, Result } from "./check.ts";

/** Connects through all hops. */
export const CARRIER_CHECK: Check<Bench> = {
  name: "hops",
  needs: ["tcp"],
  async run(bench): Promise<Result> {
    const { hops, endpoint } = chainOf(bench);
    if (hops.every(({ kind }) => kind === "unix")) return { measured: "none: the connection is direct" };
    const { system, settings } = bench;
    let passed = -2;
    let at = system.now();
    const times: string[] = [];
    const carrier = openChain(bench, (hop) => {
      passed = hop;
      const now = system.now();
      if (hop >= 0) times.push(`${hopText(hops[hop])} in ${Math.round((now - at) * 10) / 10} ms`);
      at = now;
    });
    const from = system.now();
    try {
      const { stream } = await carrier.connect(new Cancellation());
      stream.destroy();
      return { measured: times.join(", ") };
    } catch (error) {
      const failing = Math.max(0, passed + 1);
      const hop = hops[failing];
      const isSilent = system.now() - from >= settings.testTimeoutMs;
      const next = hops.slice(failing + 1).find((one) => one.endpoint !== undefined)?.endpoint ?? endpoint;
      const values = { hop: hopText(hop), next: endpointText(next) };
      const code = codeOf(hop, asFailure(error), isSilent);
      const told = evidenceOf(hop, asFailure(error), times);
      const identity = ["proxy-silent", "proxy-closed"].includes(code)
        ? await identify(system, () => openTo(bench, failing, endpointText(hop.endpoint!)))
        : undefined;
      const found =
        identity === undefined
          ? finding(code, told, values)
          : finding(
              "proxy-protocol",
              [`${identity.what} answers there: ${identity.evidence}`, ...told],
              values,
            );
      return { measured: `${hopText(hop)} fails`, findings: [found] };
    } finally {
      await carrier.close();
    }
  },
};

/** Opens a carrier to a server through only the first hops. */
export function openTo(bench: Bench, hops: number, server: string): Carrier {
  const { options, way, settings, system } = bench;
  return openCarrierChain(
    {
      server,
      via: options.ways[way].via.slice(0, hops),
      outgoing: outgoing(bench),
      connectTimeoutMs: settings.testTimeoutMs,
    },
    system,
  );
}

function evidenceOf(hop: Hop, failure: CodedFailure, times: readonly string[]): Finding["evidence"] {
  return [`${hopText(hop)}: ${failure.text}`, ...times.map((time) => `before it: ${time}`)];
}

function codeOf(hop: Hop, failure: CodedFailure, isSilent: boolean): FindingCode {
  if (isSilent) return hop.kind === "tls" ? "tls-not-spoken" : "proxy-silent";
  const { code, status, text } = failure;
  switch (code) {
    case "ERR_SOCKS_VERSION":
    case "ERR_SOCKS_MALFORMED":
    case "ERR_HEAD_MALFORMED":
    case "ERR_HEAD_TOO_LARGE":
      return "proxy-protocol";
    case "ERR_SOCKS_METHOD":
    case "ERR_SOCKS_AUTH":
      return "proxy-credentials";
    case "ERR_SOCKS_REPLY":
      return status === 2 ? "proxy-forbids" : "proxy-cannot-reach";
    case "ERR_PROXY_REFUSED":
      if (status === 407) return "proxy-credentials";
      return status !== undefined && status < 500 ? "proxy-forbids" : "proxy-cannot-reach";
    default:
  }
  if (hop.kind === "ss") return "plugin-failed";
  if (hop.kind === "tls" || hop.kind === "ws") {
    const tls = tlsCode(code, text);
    if (tls !== undefined) return tls;
    if (hop.kind === "ws") return /status \d+ instead/.test(text) ? "websocket-refused" : "proxy-protocol";
    return "tls-refused";
  }
  return "proxy-closed";
}

/** Maps the error codes of Node and OpenSSL. */
function tlsCode(code: string, text: string): FindingCode | undefined {
  if (code === "ERR_TLS_CERT_ALTNAME_INVALID") return "tls-name";
  if (code === "CERT_HAS_EXPIRED" || code === "CERT_NOT_YET_VALID") return "tls-time";
  if (/^(?:DEPTH_ZERO_SELF_SIGNED_CERT|SELF_SIGNED_CERT_IN_CHAIN|UNABLE_TO_|CERT_|INVALID_CA)/.test(code))
    return "tls-untrusted";
  if (/WRONG_VERSION_NUMBER|PACKET_LENGTH_TOO_LONG|UNEXPECTED_MESSAGE|RECORD_LAYER|HTTP_REQUEST/.test(code))
    return "tls-not-spoken";
  if (/^ERR_SSL_/.test(code)) return "tls-refused";
  return /during the handshake/.test(text) ? "tls-not-spoken" : undefined;
}
