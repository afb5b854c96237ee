import { getServers } from "node:dns";
import { lookup } from "node:dns/promises";
import { networkInterfaces } from "node:os";
import { performance } from "node:perf_hooks";
import { lookUpError } from "../host/addresses/look-up-error.ts";
import type { Io } from "../host/io/io.ts";
import type { Loop } from "../host/loop.ts";
import type { System } from "../host/system.ts";
import { usePlugin } from "./carriers/plugin-process.ts";
import { wrapInTls } from "./carriers/tls.ts";
import { nodeCryptography } from "./cryptography.ts";
import { descriptorLimit } from "./descriptor-limit.ts";
import { Http2ProxySession } from "./masque/http2-proxy-session.ts";
import { openRingFile } from "./ring-file.ts";
import { shadowsocksCryptography } from "./shadowsocks-cryptography.ts";
import { nodeErrors } from "./system-text.ts";
import { readTextFile } from "./text-file.ts";

/** The loop of this thread. */
export const nodeLoop: Loop = {
  now: () => performance.now(),
  after(delayMs, callback, isOptional = false) {
    const timeout = setTimeout(callback, delayMs);
    if (isOptional) timeout.unref();
    return { cancel: () => clearTimeout(timeout) };
  },
  nextTurn: (callback) => void setImmediate(callback),
};

/** libuv leaves half of the threads of its pool, rounded up, to look-ups. Default: 4 threads. */
const LOOK_UP_CONCURRENCY = Math.ceil(Math.max(1, Number(process.env.UV_THREADPOOL_SIZE) || 4) / 2);

/** Node as the system of a host. */
export function nodeSystem(io: Io): System {
  return {
    ...nodeLoop,
    ...nodeErrors,
    unixMs: () => Date.now(),
    sharedMs: () => Number(process.hrtime.bigint()) / 1e6,
    cryptography: nodeCryptography,
    shadowsocks: shadowsocksCryptography,
    io,
    async lookUp(name) {
      const found = await lookup(name, { all: true, verbatim: true }).catch(
        (error: NodeJS.ErrnoException) => {
          throw error.errno === undefined ? error : lookUpError(name, error.errno, nodeErrors);
        },
      );
      return found.map(({ address }) => address);
    },
    lookUpConcurrency: LOOK_UP_CONCURRENCY,
    nameservers: getServers,
    interfaces: () =>
      Object.values(networkInterfaces()).map((addresses) =>
        addresses!.map(({ address, internal }) => ({ ip: address, isInternal: internal })),
      ),
    descriptorLimit,
    wrapTls: (stream, options, host, cancellation) =>
      wrapInTls(stream, options, host, cancellation, io.native),
    openHttp2: (...args) => Http2ProxySession.open(...args),
    usePlugin,
    openRingFile,
    readFile: readTextFile,
  };
}
