import { HostError } from "../core/errors.ts";
import type { Logger } from "./log.ts";
import type { NativeModule } from "./native-module.ts";
import { loadNativeModule } from "./native-module.ts";
import type { UdpIo } from "./udp-io.ts";
import { nativeUdpIo } from "./udp-io-native.ts";
import { plainUdpIo } from "./udp-io-plain.ts";

/** How an endpoint does its I/O. */
export interface Io {
  readonly udp: UdpIo;
  /** Undefined for node:dgram and node:net. */
  readonly native: NativeModule | undefined;
}

export type IoKind = "native" | "plain";

let isTold = false;

/**
 * Chooses the requested kind, else that of the environment variable UNDERPASS_IO, else native if it can be loaded.
 *
 * @throws HostError ERR_NATIVE when native I/O was requested and is not available
 */
export function chooseIo(asked: IoKind | undefined, log: Logger): Io {
  const kind = asked ?? process.env.UNDERPASS_IO;
  if (kind === "plain") return { udp: plainUdpIo, native: undefined };
  const native = loadNativeModule();
  if (!(native instanceof Error)) {
    return {
      native,
      // Created on first use: a thread that only supervises others does not need its memory.
      get udp() {
        return nativeUdpIo(native);
      },
    };
  }
  const reason = native.message.split("\n")[0];
  if (kind === "native") {
    throw new HostError(
      "ERR_NATIVE",
      `native I/O cannot be loaded (${reason}): build it with "npm run build:native"`,
    );
  }
  if (!isTold) {
    isTold = true;
    log.warn(
      { reason },
      'plain I/O, at a third of the native speed or less: build the module with "npm run build:native"',
    );
  }
  return { udp: plainUdpIo, native: undefined };
}
