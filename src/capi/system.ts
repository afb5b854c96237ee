import { lookUpError } from "../host/addresses/look-up-error.ts";
import { withLatency } from "../host/io/udp-io.ts";
import { openNativeUdpIo } from "../host/io/udp-io-native.ts";
import type { Loop, Timer } from "../host/loop.ts";
import { NativeTcp } from "../host/stream/tcp-native.ts";
import type { InterfaceIp, System, SystemErrors } from "../host/system.ts";
import type { LatencyClass } from "../wire/latency-class.ts";
import type { CHost } from "./c-host.ts";
import { readFile } from "./options/read-file.ts";
import { cShadowsocks } from "./shadowsocks.ts";
import { wrapInTls } from "./tls.ts";

/** A timer in C. Another timer may get its number once it is over. */
class CTimer implements Timer {
  readonly #host: CHost;
  #number: number;

  constructor(host: CHost, delayMs: number, callback: () => void) {
    this.#host = host;
    this.#number = host.timerStart(delayMs, () => {
      this.#number = -1;
      callback();
    });
  }

  cancel(): void {
    if (this.#number < 0) return;
    this.#host.timerCancel(this.#number);
    this.#number = -1;
  }
}

/**
 * The {@link System} of an instance of the C library.
 *
 * @param latency  class of sockets without their own
 */
export function cSystem(host: CHost, latency: LatencyClass): System {
  const loop = cLoop(host);
  const errors: SystemErrors = {
    errorName: (error) => host.systemErrorName(error),
    errorText: (error) => `${host.systemErrorText(error)} (${host.systemErrorName(error)})`,
  };
  return {
    ...loop,
    ...errors,
    unixMs: () => host.unixMs(),
    cryptography: {
      hmac: (key, data) => host.hmac(key, data),
      random: (length) => host.random(length),
    },
    maskBytes: (from, start, end, to, at, mask, phase) =>
      host.maskBytes(from, start, end, to, at, mask, phase),
    shadowsocks: cShadowsocks(host),
    io: {
      udp: withLatency(openNativeUdpIo(host, loop, host.datapath), latency),
      tcp: new NativeTcp(host, errors),
      native: host,
      latency,
    },
    datapath: host.datapath,
    lookUp: (name) =>
      new Promise((done, failed) =>
        host.lookUp(name, (error, ips) => {
          if (error === 0) done(ips);
          else failed(lookUpError(name, error, errors));
        }),
      ),
    nameservers: () => nameservers(host),
    interfaces: () => interfaces(host),
    descriptorLimit: () => host.descriptorLimit() || Number.POSITIVE_INFINITY,
    wrapTls: (stream, options, peer, cancellation) =>
      wrapInTls(host, loop, stream, options, peer, cancellation),
    readFile: (path) => readFile(host, path),
  };
}

function cLoop(host: CHost): Loop {
  let turn: (() => void)[] = [];
  host.setTurn(() => {
    const callbacks = turn;
    turn = [];
    for (const callback of callbacks) callback();
  });
  return {
    now: host.now,
    after: (delayMs, callback) => new CTimer(host, delayMs, callback),
    nextTurn: (callback) => {
      if (turn.push(callback) === 1) host.requestTurn();
    },
  };
}

function interfaces(host: CHost): readonly (readonly InterfaceIp[])[] {
  const byName = new Map<string, InterfaceIp[]>();
  for (const [name, ip, isInternal] of host.interfaceAddresses()) {
    const addresses = byName.get(name) ?? [];
    addresses.push({ ip, isInternal });
    byName.set(name, addresses);
  }
  return [...byName.values()];
}

/** The name servers of resolv.conf; none without such a file. */
function nameservers(host: CHost): readonly string[] {
  try {
    const text = String.fromCharCode(...host.readFile("/etc/resolv.conf"));
    return [...text.matchAll(/^nameserver[ \t]+(\S+)/gm)].map(([, ip]) => ip);
  } catch {
    return [];
  }
}
