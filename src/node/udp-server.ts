import type { Io } from "../host/io/io.ts";
import type { Logger } from "../host/log.ts";
import { silentLogger } from "../host/log.ts";
import { isExclusive, parseEgress } from "../host/options/egress-option.ts";
import type { KeyOption } from "../host/options/keys.ts";
import { isShadowsocksListen } from "../host/options/shadowsocks-listen.ts";
import type { ResolvedUdpServerOptions, UdpServerOptions } from "../host/options/udp-server.ts";
import type { KeptState } from "../host/restart/kept-state.ts";
import { distribute, highestNumber } from "../host/restart/kept-state.ts";
import type { TunnelStats } from "../host/stats/tunnel-stats.ts";
import type { UdpServerEvents } from "../host/udp-server.ts";
import { UdpServerHost } from "../host/udp-server.ts";
import type { HandedOver, OtherWorkers, WorkerPlace } from "../host/workers.ts";
import type { UdpServer } from "./handles.ts";
import { HostHandle } from "./handles.ts";
import { chooseIo, warnOfSingleThread } from "./io/io.ts";
import { DescriptorStore } from "./restart/descriptor-store.ts";
import { nodeSystem } from "./system.ts";
import { NodeWebServer } from "./web/node-web-server.ts";
import { WorkerGroup } from "./worker-group.ts";

const EVENTS = {
  "session-up": true,
  "session-resumed": true,
  "session-down": true,
  "session-ended": true,
  "listener-failed": true,
} satisfies Record<keyof UdpServerEvents, true>;

/** Starts a server. @throws UsageError for options, HostError when it cannot listen */
export async function startUdpServer(
  options: UdpServerOptions,
  log: Logger = silentLogger,
): Promise<UdpServer> {
  // Loaded only here, because worker threads get checked options.
  const { checkKeys, resolveUdpServerOptions } = await import("./options/udp-server.ts");
  const resolved = resolveUdpServerOptions(options);
  const io = chooseIo(options.io, resolved.latency, log);
  const reason = findSingleThreadReason(resolved);
  const workers = reason === undefined ? resolved.workers : 1;
  if (resolved.workers > workers) log.warn({}, `workers: has no effect: ${reason}`);
  warnOfSingleThread(workers, io, log);
  if (workers > 1 && resolved.wsPath !== undefined) {
    log.info({}, "the listening thread serves sessions over WebSockets");
  }
  const store = resolved.keepSessions ? DescriptorStore.open(io.native, log) : undefined;
  const kept = store?.take() ?? [];
  if (workers === 1 || io.native?.tcpListen === undefined) {
    const host = makeHost(resolved, log, io, undefined, undefined);
    if (store !== undefined) host.restore(distribute(store.native, kept, 1)[0]);
    await host.listen();
    return new UdpServerHandle(host, checkKeys, store);
  }
  // Only this thread listens. The others start with the first session that belongs to them.
  const numbersUsed = highestNumber(kept);
  const group = new WorkerGroup({
    program: "udp-server",
    count: workers,
    numbersUsed,
    options: resolved,
    native: io.native,
    log,
    onEvent: (name, fields) => server.emit(name, fields),
  });
  const host = makeHost(resolved, log, io, { index: 0, count: workers, numbersUsed }, group);
  const server = new UdpServerHandle(host, checkKeys, store);
  const parts = store === undefined ? [] : distribute(store.native, kept, workers);
  for (const [worker, states] of parts.entries()) {
    if (worker === 0) host.restore(states);
    else if (states.length > 0) group.restore(worker, states);
  }
  await host.listen();
  return server;
}

/** @returns why such a server has one thread; undefined if it may have more */
export function findSingleThreadReason({ egress, listen }: ResolvedUdpServerOptions): string | undefined {
  // The code that decodes a connection stays in the connection's thread.
  if (listen.some(isShadowsocksListen)) return "a server with ss:// has one thread";
  return isExclusive(parseEgress(egress)!) ? "a server with this egress has one thread" : undefined;
}

/** Starts the part of a server that runs in another thread, and accepts connections that are handed over. */
export function startUdpServerWorker(
  options: ResolvedUdpServerOptions,
  log: Logger,
  place: WorkerPlace,
): UdpServerHandle {
  const io = chooseIo(options.io, options.latency, log);
  return new UdpServerHandle(makeHost(options, log, io, place, undefined), (keys) => keys, undefined);
}

function makeHost(
  options: ResolvedUdpServerOptions,
  log: Logger,
  io: Io,
  place: WorkerPlace | undefined,
  others: OtherWorkers | undefined,
): UdpServerHost {
  return new UdpServerHost(options, log, nodeSystem(io), {
    place,
    others,
    openWebServer: NodeWebServer.open,
    // Loaded only if it is used.
    openPacketEgress: async (...args) => (await import("./io/packet-egress.ts")).openPacketEgress(...args),
  });
}

type CheckKeys = (keys: readonly KeyOption[]) => readonly KeyOption[];

/** A server that emits Node's events. */
class UdpServerHandle
  extends HostHandle<UdpServerEvents, UdpServer["address"], TunnelStats>
  implements UdpServer
{
  readonly #host: UdpServerHost;
  readonly #checkKeys: CheckKeys;

  /** Receives its sessions when it closes; undefined if they end. */
  readonly #store: DescriptorStore | undefined;

  /** @param checkKeys  @throws UsageError ERR_OPTION when one is wrong */
  constructor(host: UdpServerHost, checkKeys: CheckKeys, store: DescriptorStore | undefined) {
    super(host, EVENTS);
    this.#store = store;
    this.#host = host;
    this.#checkKeys = checkKeys;
  }

  replaceKeys(keys: readonly KeyOption[]): void {
    this.#host.replaceKeys(this.#checkKeys(keys));
  }

  takeOver(connection: HandedOver): void {
    this.#host.takeOver(connection);
  }

  restore(states: readonly KeptState[]): void {
    this.#host.restore(states);
  }

  handOn(): Promise<readonly KeptState[]> {
    return this.#host.handOn();
  }

  override async close(): Promise<void> {
    if (this.#store === undefined) return this.#host.close();
    const states = await this.#host.handOn();
    if (states.length > 0) this.#store.put(states);
  }
}
