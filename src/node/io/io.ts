import { HostError } from "../../core/errors.ts";
import type { Io, IoKind } from "../../host/io/io.ts";
import type { UdpIo } from "../../host/io/udp-io.ts";
import { withLatency } from "../../host/io/udp-io.ts";
import type { Logger } from "../../host/log.ts";
import { NativeTcp } from "../../host/stream/tcp-native.ts";
import type { LatencyClass } from "../../wire/latency-class.ts";
import { loadNativeModule } from "../load-native-module.ts";
import { nodeErrors } from "../system-text.ts";
import { nativeUdpIo } from "./native-udp-io.ts";
import { plainTcp } from "./tcp-plain.ts";
import { plainUdpIo } from "./udp-io-plain.ts";

let isTold = false;
/** One for this thread, so that all its connections read into one buffer. */
let tcp: NativeTcp | undefined;

/**
 * Chooses the requested kind, otherwise that of the environment variable UNDERPASS_IO, otherwise native if it can be loaded.
 *
 * @param latency  class of the sockets that it opens, unless they have their own
 * @throws HostError ERR_NATIVE when native I/O was requested and is not available
 */
export function chooseIo(asked: IoKind | undefined, latency: LatencyClass, log: Logger): Io {
  const io = chooseKind(asked, latency, log);
  if (latency !== "balanced" && io.native?.udpLatency === undefined) {
    log.warn({ latency }, "latency: has no effect without native I/O on Linux");
  }
  return io;
}

/** Warns that a program with several threads asked for has only one. */
export function warnOfSingleThread(workers: number, io: Io, log: Logger): void {
  if (workers > 1 && io.native?.tcpListen === undefined) {
    log.warn({}, "workers: has no effect: a program without native I/O has one thread");
  }
}

/** Whether {@link chooseIo} would choose native I/O. */
export function hasNativeIo(asked: IoKind | undefined): boolean {
  return (asked ?? process.env.UNDERPASS_IO) !== "plain" && !(loadNativeModule() instanceof Error);
}

function chooseKind(asked: IoKind | undefined, latency: LatencyClass, log: Logger): Io {
  const kind = asked ?? process.env.UNDERPASS_IO;
  if (kind === "plain") return { udp: plainUdpIo, tcp: plainTcp, native: undefined, latency };
  const native = loadNativeModule();
  if (!(native instanceof Error)) {
    let udp: UdpIo | undefined;
    tcp ??= new NativeTcp(native, nodeErrors);
    return {
      native,
      tcp,
      latency,
      // Created on first use, because a thread that only supervises others does not need its memory.
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
  return { udp: plainUdpIo, tcp: plainTcp, native: undefined, latency };
}
