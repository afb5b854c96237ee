import { hopText } from "../carriers/hop.ts";
import { firstEndpoint } from "./checks/name-check.ts";
import type { Examined } from "./examined.ts";
import { chainOf } from "./examined.ts";

/** Relays that have an option not to wait. */
const SHADOWSOCKS = /^ss-(?:tunnel|local|redir|server)$/;

/** The hop that waits for ACKs, as far as this end can know, and how to stop it from waiting. */
export function waitingHop(examined: Examined): { readonly hop: string; readonly cure: string } {
  const chain = chainOf(examined);
  const first = firstEndpoint(chain);
  const isHere = first.path === undefined && /^(?:127\.|::1$|localhost$)/.test(first.host);
  const program = isHere ? examined.findListener(first.port) : undefined;
  if (program !== undefined && SHADOWSOCKS.test(program.name)) {
    const who = `${program.name} (PID ${program.pid})`;
    if (!program.arguments.includes("--no-delay")) {
      return {
        hop: `${who} on this machine runs without --no-delay`,
        cure: `start ${program.name} and ss-server with --no-delay, or replace ${program.name} by --via ss://...`,
      };
    }
    const hasPlugin = program.arguments.includes("--plugin");
    return hasPlugin
      ? {
          hop: `${who} runs with --no-delay, but its plugin has no such option`,
          cure: `leave the plugin out at both ends, or replace ${program.name} by --via ss://...`,
        }
      : {
          hop: `${who} runs with --no-delay, so the server behind it is the one that waits`,
          cure: "start ss-server with --no-delay, or replace it by udp-server --listen ss://...",
        };
  }
  const shadowsocks = chain.hops.findLast((hop) => hop.kind === "ss");
  if (shadowsocks?.kind === "ss") {
    const { obfs, plugin } = shadowsocks.shadowsocks;
    return obfs !== undefined || plugin !== undefined
      ? {
          hop: `the server's plugin of ${hopText(shadowsocks)} has no option to turn that off`,
          cure: "replace ss-server and its plugin by udp-server --listen ss://..., or leave the plugin out at both ends",
        }
      : {
          hop: `${hopText(shadowsocks)} is the only relay on the way`,
          cure: "start ss-server with --no-delay, or replace it by udp-server --listen ss://...",
        };
  }
  const last = chain.hops.findLast((hop) => hop.endpoint !== undefined);
  if (last !== undefined) {
    return {
      hop: `${hopText(last)} is the last relay on the way`,
      cure: `have ${hopText(last)} set TCP_NODELAY, or bypass it`,
    };
  }
  return {
    hop:
      program === undefined
        ? "some relay on the way"
        : `${program.name} (PID ${program.pid}) on this machine`,
    cure: "have that relay set TCP_NODELAY (ss-tunnel and ss-server: --no-delay), or reach the server by --via ss://...",
  };
}
