import { UsageError } from "../core/errors.ts";
import type { Io } from "../host/io/io.ts";
import type { Logger } from "../host/log.ts";
import { silentLogger } from "../host/log.ts";
import type { ResolvedUdpLocalOptions } from "../host/options/udp-local.ts";
import type { UdpLocalEvents, UdpLocalFeatures } from "../host/udp-local.ts";
import { UdpLocalHost } from "../host/udp-local.ts";
import type { WorkerPlace } from "../host/workers.ts";
import { streamCarrier } from "./carriers/stream-carrier.ts";
import type { UdpLocal } from "./handles.ts";
import { emitOn, HostHandle } from "./handles.ts";
import { chooseIo, warnOfSingleThread } from "./io/io.ts";
import type { Carrier, CheckedUdpLocalOptions, UdpLocalOptions } from "./options/udp-local.ts";
import { nodeSystem } from "./system.ts";
import { WorkerGroup } from "./worker-group.ts";

const EVENTS = {
  "session-up": true,
  "session-down": true,
  "session-resumed": true,
  "session-renewed": true,
  "listener-failed": true,
  error: true,
} satisfies Record<keyof UdpLocalEvents, true>;

/** Starts a client. @throws UsageError for options, HostError when it cannot listen */
export async function startUdpLocal(options: UdpLocalOptions, log: Logger = silentLogger): Promise<UdpLocal> {
  // Loaded only here, because worker threads get checked options.
  const { resolveUdpLocalOptions } = await import("./options/udp-local.ts");
  const resolved = resolveUdpLocalOptions(options);
  const { workers, carrier } = resolved;
  const io = chooseIo(options.io, resolved.latency, log);
  if (workers > 1 && carrier !== undefined) {
    throw new UsageError("ERR_OPTION", "carrier: a function cannot run in other threads: leave workers at 1");
  }
  warnOfSingleThread(workers, io, log);
  if (workers === 1 || io.native?.tcpListen === undefined) {
    const host = makeHost(resolved, log, io, undefined);
    await host.listen();
    return new HostHandle(host, EVENTS);
  }
  const host = makeHost(resolved, log, io, { index: 0, count: workers });
  await host.listen();
  const local = new HostHandle(host, EVENTS);
  const { address } = local;
  const forwards = resolved.forwards.map((forward, i) => ({
    ...forward,
    listen: address.forwards[i].listen,
  }));
  const group = new WorkerGroup({
    program: "udp-local",
    count: workers,
    options: { ...resolved, listen: address.socks5 ?? false, forwards },
    native: io.native,
    log,
    onEvent: (name, fields) => emitOn(local, name, fields),
  });
  host.others = group;
  try {
    await group.start();
  } catch (error) {
    await local.close();
    throw error;
  }
  return local;
}

/** Starts the part of a client that runs in a worker. */
export async function startUdpLocalWorker(
  options: ResolvedUdpLocalOptions,
  log: Logger,
  place: WorkerPlace,
): Promise<UdpLocal> {
  const io = chooseIo(options.io, options.latency, log);
  const host = makeHost({ ...options, carrier: undefined }, log, io, place);
  await host.listen();
  return new HostHandle(host, EVENTS);
}

function makeHost(
  { carrier, ...options }: CheckedUdpLocalOptions,
  log: Logger,
  io: Io,
  place: WorkerPlace | undefined,
): UdpLocalHost {
  return new UdpLocalHost(options, log, nodeSystem(io), featuresOf(carrier, io, place));
}

/** The features that Node adds to a client. */
export function featuresOf(
  carrier: Carrier | undefined,
  io: Io,
  place: WorkerPlace | undefined,
): UdpLocalFeatures {
  return { place, carrier: carrier && streamCarrier(carrier, io) };
}
