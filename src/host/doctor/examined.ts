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

/** What is examined, and by which way. */
export interface Examined {
  readonly options: ResolvedUdpLocalOptions;
  readonly settings: DoctorSettings;
  readonly system: System;
  /** The program that listens on a loopback TCP port, if this user may see it; otherwise undefined. */
  readonly findListener: (port: number) => LocalProgram | undefined;
  /** The index of the examined way in the options. */
  way: number;
  /** The addresses of the first hop, in the order in which they are tried. */
  addresses: readonly string[];
}

export function outgoing({ options }: Examined): Outgoing | undefined {
  return outgoingOf(options);
}

/** The hops and the server of the examined way. */
export function chainOf(examined: Examined): CarrierChain {
  return parseCarrierChain({ ...examined.options.ways[examined.way], outgoing: outgoing(examined) });
}

/** Opens a carrier for the examined way. */
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
