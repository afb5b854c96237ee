import type { NameField, OptionField } from "../../host/options/fields/fields.ts";
import {
  TUN2SOCKS_FIELDS as HOST_FIELDS,
  resolveTun2Socks,
} from "../../host/options/fields/tun2socks-fields.ts";
import type { ResolvedTun2SocksOptions, Tun2SocksSettings } from "../../host/options/tun2socks.ts";
import { loadNativeModule } from "../load-native-module.ts";
import { findTlsProblem } from "./tls-files.ts";
import type { CheckedUdpLocalOptions, UdpLocalOptions } from "./udp-local.ts";
import { UDP_LOCAL_FIELDS } from "./udp-local.ts";

export interface Tun2SocksOptions extends Tun2SocksSettings, Pick<UdpLocalOptions, "carrier"> {}

const { masque, carrier } = UDP_LOCAL_FIELDS;

export const TUN2SOCKS_FIELDS = {
  ...HOST_FIELDS,
  masque,
  carrier,
} satisfies Record<keyof Tun2SocksOptions, OptionField>;

/** {@link ResolvedTun2SocksOptions}, with the options that only Node has. */
export interface CheckedTun2SocksOptions extends ResolvedTun2SocksOptions {
  readonly tunnel: CheckedUdpLocalOptions;
}

/**
 * Fills the defaults in and checks every field.
 *
 * @throws UsageError ERR_OPTION: one line with the field's path, its value unless it is secret, and what is wanted
 */
export function resolveTun2SocksOptions(
  input: Tun2SocksOptions,
  nameField?: NameField,
): CheckedTun2SocksOptions {
  const platform = {
    fields: TUN2SOCKS_FIELDS,
    tunnel: { fields: UDP_LOCAL_FIELDS, findTlsProblem },
    interfaceIpv4,
  };
  return resolveTun2Socks(platform, input, nameField) as CheckedTun2SocksOptions;
}

/** os.networkInterfaces() omits a device that nobody has opened yet. */
function interfaceIpv4(name: string): Uint8Array | undefined {
  const native = loadNativeModule();
  return native instanceof Error ? undefined : native.interfaceIpv4?.(name);
}
