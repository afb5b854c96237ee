import { HostError } from "../core/errors.ts";
import type { LatencyClass } from "../wire/latency-class.ts";
import type { Logger } from "./log.ts";
import type { NativeModule } from "./native-module.ts";
import { loadNativeModule } from "./native-module.ts";
import type { UdpIo } from "./udp-io.ts";
import { withLatency } from "./udp-io.ts";
import { nativeUdpIo } from "./udp-io-native.ts";
import { plainUdpIo } from "./udp-io-plain.ts";

/** How an endpoint does its I/O. */
export interface Io {
  readonly udp: UdpIo;
  /** Undefined for node:dgram and node:net. */
  readonly native: NativeModule | undefined;
  /** Class of sockets that do not have their own. */
  readonly latency: LatencyClass;
}

export type IoKind = "native" | "plain";

let isTold = false;

/**
 * Chooses the requested kind, else that of the environment variable UNDERPASS_IO, else native if it can be loaded.
 *
 * @param latency  class of the sockets that are opened with it, unless they have their own
 * @throws HostError ERR_NATIVE when native I/O was requested and is not available
 */
export function chooseIo(asked: IoKind | undefined, latency: LatencyClass, log: Logger): Io {
  const io = chooseKind(asked, latency, log);
  if (latency !== "balanced" && io.native?.udpLatency === undefined) {
    log.warn({ latency }, "latency: has no effect without native I/O on Linux");
  }
  return io;
}

function chooseKind(asked: IoKind | undefined, latency: LatencyClass, log: Logger): Io {
  const kind = asked ?? process.env.UNDERPASS_IO;
  if (kind === "plain") return { udp: plainUdpIo, native: undefined, latency };
  const native = loadNativeModule();
  if (!(native instanceof Error)) {
    let udp: UdpIo | undefined;
    return {
      native,
      latency,
      // Created on first use: a thread that only supervises others does not need its memory.
      get udp() {
        udp ??= withLatency(nativeUdpIo(native), latency);
        return udp;
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
  return { udp: plainUdpIo, native: undefined, latency };
}
