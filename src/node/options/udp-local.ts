import type { Duplex } from "node:stream";
import type { NameField, OptionField } from "../../host/options/fields/fields.ts";
import { embeddersOwn } from "../../host/options/fields/fields.ts";
import {
  UDP_LOCAL_FIELDS as HOST_FIELDS,
  resolveUdpLocal,
} from "../../host/options/fields/udp-local-fields.ts";
import type { ResolvedUdpLocalOptions, UdpLocalSettings } from "../../host/options/udp-local.ts";
import { findTlsProblem } from "./tls-files.ts";

/** Makes the connection of one lane: any stream that carries bytes both ways in order. */
export type Carrier = () => Duplex | Promise<Duplex>;

export interface UdpLocalOptions extends UdpLocalSettings {
  /** Connects lanes instead of `via` and `server`. */
  readonly carrier?: Carrier | undefined;
}

/** All options with their defaults; every text is well-formed. */
export type CheckedUdpLocalOptions = ResolvedUdpLocalOptions & { readonly carrier: Carrier | undefined };

export const UDP_LOCAL_FIELDS = {
  ...HOST_FIELDS,
  carrier: embeddersOwn<Carrier>((value) => typeof value === "function", "a function that gives a Duplex"),
} satisfies Record<keyof UdpLocalOptions, OptionField>;

/**
 * Fills the defaults in and checks every field.
 *
 * @param hasRelay  whether datagrams come from elsewhere too, so that it need not listen
 * @throws UsageError ERR_OPTION: one line with the field's path, its value unless it is secret, and what is wanted
 */
export function resolveUdpLocalOptions(
  input: UdpLocalOptions,
  nameField?: NameField,
  hasRelay = false,
): CheckedUdpLocalOptions {
  const platform = { fields: UDP_LOCAL_FIELDS, findTlsProblem };
  return resolveUdpLocal(platform, input, nameField, hasRelay) as CheckedUdpLocalOptions;
}
