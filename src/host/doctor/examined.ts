import type { Outgoing } from "../addresses/outgoing.ts";
import { outgoingOf } from "../addresses/outgoing.ts";
import type { CarrierChain, ChainTrace } from "../carriers/carrier-chain.ts";
import { openCarrierChain, parseCarrierChain } from "../carriers/carrier-chain.ts";
import type { ResolvedUdpLocalOptions } from "../options/udp-local.ts";
import type { System } from "../system.ts";
import type { DoctorSettings } from "./settings.ts";

/** A program of this machine that listens somewhere. */
export interface LocalProgram {
  readonly name: string;
  readonly pid: number;
  readonly arguments: readonly string[];
}

/** What is examined, and which way of it. */
export interface Examined {
  readonly options: ResolvedUdpLocalOptions;
  readonly settings: DoctorSettings;
  readonly system: System;
  /** Which program listens at a TCP port of loopback, as far as this user may see; undefined where it is not known. */
  readonly findListener: (port: number) => LocalProgram | undefined;
  /** The way that is walked, by its index in the options. */
  way: number;
  /** The addresses of the first hop, in the order in which they are tried. */
  addresses: readonly string[];
}

export function outgoing({ options }: Examined): Outgoing | undefined {
  return outgoingOf(options);
}

/** The hops and the server of the way that is walked. */
export function chainOf(examined: Examined): CarrierChain {
  return parseCarrierChain({ ...examined.options.ways[examined.way], outgoing: outgoing(examined) });
}

/** To connect by that way. */
export function openChain(examined: Examined, trace?: ChainTrace) {
  const { options, way, settings, system } = examined;
  return openCarrierChain(
    {
      ...options.ways[way],
      outgoing: outgoing(examined),
      connectTimeoutMs: settings.testTimeoutMs,
      trace,
    },
    system,
  );
}
