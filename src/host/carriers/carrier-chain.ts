import { HostError, UsageError } from "../../core/errors.ts";
import type { ConnectHandshake } from "../../core/handshakes/connect-handshake.ts";
import { HttpConnect } from "../../core/handshakes/http-connect.ts";
import { Socks5Client } from "../../core/handshakes/socks5-client.ts";
import { isDomain } from "../../wire/capsule.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { addressPort, formatHost, makeAddress } from "../../wire/socket-address.ts";
import { COMMAND_UDP_ASSOCIATE } from "../../wire/socks5.ts";
import type { Endpoint } from "../addresses/endpoint.ts";
import { formatEndpoint, parseEndpoint, splitZone } from "../addresses/endpoint.ts";
import type { Outgoing } from "../addresses/outgoing.ts";
import { isLoopback } from "../addresses/outgoing.ts";
import type { Cancellation } from "../cancellation.ts";
import { wait } from "../loop.ts";
import type { ByteStream } from "../stream/byte-stream.ts";
import type { System } from "../system.ts";
import { required } from "../system.ts";
import { openWebSocket } from "../web-socket/open.ts";
import type { Carrier } from "./carrier.ts";
import type { Hop } from "./hop.ts";
import { badHop, endpointText, hopText, parseHop, tlsOf } from "./hop.ts";
import type { PluginUse } from "./plugin-use.ts";
import { shakeHands } from "./proxy.ts";
import { wrapInShadowsocks } from "./shadowsocks.ts";
import { connectStream } from "./socket.ts";
import type { TlsOptions } from "./tls-options.ts";
import { splitWay } from "./way.ts";

const CONNECT_MS = 10_000;
/** Time between attempts to connect to a plugin that has just started. */
const PLUGIN_POLL_MS = 20;

export interface CarrierChainOptions {
  /** `HOST:PORT`, `[IPv6]:PORT` or `unix:/path`. */
  readonly server: string;
  /** Hops, nearest first: `socks5://`, `http://`, `ss://`, `tls://`, `ws://`, `wss://`, `unix:`. */
  readonly via: readonly string[];
  /** Time limit for the whole chain, in milliseconds. Default 10,000. */
  readonly connectTimeoutMs?: number;
  /** Interface or mark of the first connection. By default, routing decides. */
  readonly outgoing?: Outgoing | undefined;
  /** Hears how far each connection gets. Default: nobody. */
  readonly trace?: ChainTrace | undefined;
}

/**
 * Called when a connection has passed a hop.
 *
 * @param hop     its index; -1 for the first connection
 * @param stream  the stream through that hop
 */
export type ChainTrace = (hop: number, stream: ByteStream) => void;

/** A parsed carrier chain: its destination and its hops. */
export interface CarrierChain extends Pick<Carrier, "description" | "authority" | "isLocal"> {
  readonly endpoint: Endpoint;
  readonly hops: readonly Hop[];
}

/**
 * Parses `--server` and the `--via` list. A proxy is reached through the hops before it, and asked to connect to the next address. `tls://`
 * wraps the connection to the next address or, with an address of its own, connects to that and wraps it. The server of a WebSocket
 * determines where it leads, which should be the next address.
 *
 * @throws UsageError ERR_OPTION that names the value, without its password
 */
export function parseCarrierChain({ server, via, outgoing }: CarrierChainOptions): CarrierChain {
  const endpoint = parseEndpoint(server);
  const hops = via.map(parseHop);
  const names = hops.map(hopText);
  // A zone is meaningful only on this machine.
  const authority =
    endpoint.path === undefined ? formatEndpoint(splitZone(endpoint.host).ip, endpoint.port) : "localhost";
  checkZones(hops, endpoint);
  checkPlugin(hops, outgoing);
  return {
    description: names.length === 0 ? server : `${server} via ${names.join(", ")}`,
    authority,
    isLocal: hops.length === 0 && isLocalEndpoint(endpoint),
    endpoint,
    hops,
  };
}

/** Like {@link parseCarrierChain}, and opens it for connections. */
export function openCarrierChain(options: CarrierChainOptions, system: System): Carrier {
  const { outgoing, connectTimeoutMs, trace } = options;
  const { endpoint, hops, ...carrier } = parseCarrierChain(options);
  const chain = new HopChain(hops, system, outgoing, trace);
  return {
    ...carrier,
    connect: async (cancellation) => ({
      stream: await chain.connect(endpoint, cancellation, { timeoutMs: connectTimeoutMs }),
    }),
    close: () => chain.close(),
  };
}

/** @throws UsageError ERR_OPTION when a program would have to connect through `outgoing` */
function checkPlugin([first]: readonly Hop[], outgoing: Outgoing | undefined): void {
  if (first?.kind !== "ss" || first.shadowsocks.plugin === undefined || outgoing === undefined) return;
  const problem = `the plugin ${first.shadowsocks.plugin.program} would not leave by the interface or mark`;
  throw new UsageError("ERR_OPTION", `via: ${hopText(first)}: ${problem}`);
}

function isLocalEndpoint(endpoint: Endpoint): boolean {
  if (endpoint.path !== undefined || endpoint.host === "localhost") return true;
  const address = makeAddress(endpoint.host, endpoint.port);
  return address !== undefined && !isDomain(address) && isLoopback(address);
}

/** @throws UsageError ERR_OPTION for a link-local address that a proxy would have to reach */
function checkZones(hops: readonly Hop[], server: Endpoint): void {
  const ways = hops.filter(({ endpoint }) => endpoint !== undefined);
  for (const [index, hop] of ways.entries()) {
    const next = ways[index + 1]?.endpoint ?? server;
    if (!isProxy(hop) || next.path !== undefined || splitZone(next.host).zone === undefined) continue;
    const text = formatEndpoint(next.host, next.port);
    throw new UsageError(
      "ERR_OPTION",
      `via: no proxy can reach ${text}, as its zone belongs to this machine`,
    );
  }
}

/** True if the last hop with an address is a proxy, which then connects to the server. @param via  well-formed */
export function isBehindProxy(via: readonly string[]): boolean {
  const last = via.map(parseHop).findLast((hop) => hop.endpoint !== undefined);
  return last !== undefined && isProxy(last);
}

/** True if the hop connects to the next address, whatever that is. */
function isProxy({ kind }: Hop): boolean {
  return kind === "socks5" || kind === "http" || kind === "ss";
}

/** A way to TCP targets. */
export interface TcpWay {
  /**
   * Connects. The stream is to be handed on.
   *
   * @param onReached  called when the last proxy has answered, or, if it does not answer by itself, has accepted the connection
   * @throws HostError ERR_CONNECT
   */
  connect(target: AddressBytes, cancellation: Cancellation, onReached?: () => void): Promise<ByteStream>;
  /** Ends what it started. */
  close(): Promise<void>;
}

/** @param via  hops separated by blanks, nearest first, the last `socks5://` or `ss://`; undefined to connect directly */
export function tcpWay(via: string | undefined, system: System, outgoing?: Outgoing): TcpWay {
  const hops = via === undefined ? [] : splitWay(via).via.map(parseHop);
  checkPlugin(hops, outgoing);
  const chain = new HopChain(hops, system, outgoing);
  return {
    connect: (target, cancellation, onReached) =>
      chain.connect({ host: formatHost(target), port: addressPort(target) }, cancellation, { onReached }),
    close: () => chain.close(),
  };
}

/** A UDP ASSOCIATE of a SOCKS5 server, which lasts as long as `stream`. */
export interface UdpAssociate {
  /** To be handed on. */
  readonly stream: ByteStream;
  /** BND.ADDR and BND.PORT: the address for datagrams, according to the server. */
  readonly bound: AddressBytes;
  /** IP text of the server, with its zone. */
  readonly peer: string;
}

/** @param url  `socks5://[user:password@]host:port` */
export async function openUdpAssociate(
  url: string,
  system: System,
  cancellation: Cancellation,
  outgoing?: Outgoing,
): Promise<UdpAssociate> {
  const hop = parseHop(url, 0);
  if (hop.kind !== "socks5") throw badHop(url, "expected socks5://");
  const stream = await new HopChain([], system, outgoing).connect(hop.endpoint, cancellation, {});
  const unknown = makeAddress("0.0.0.0", 0)!;
  const handshake = new Socks5Client(unknown, hop.credentials, COMMAND_UDP_ASSOCIATE);
  const deadline = cancellation.within(system, CONNECT_MS);
  try {
    await shakeHands(stream, handshake, deadline);
  } finally {
    deadline.release();
  }
  const { remoteIp } = stream;
  if (remoteIp === undefined) {
    stream.destroy();
    throw new HostError("ERR_CONNECTION_LOST", "the proxy closed it");
  }
  return { stream, bound: handshake.bound!, peer: remoteIp };
}

/** @throws HostError ERR_UNSUPPORTED for a hop that the system does not support */
function checkSupport(hop: Hop, system: System): void {
  if (tlsOf(hop) !== undefined) required(system.wrapTls, "TLS");
  if (hop.kind !== "ss") return;
  required(system.shadowsocks, "ss://");
  if (hop.shadowsocks.plugin !== undefined) required(system.usePlugin, "a plugin that is a program");
}

/** Connects through a list of hops. */
class HopChain {
  readonly #hops: readonly Hop[];
  readonly #system: System;
  readonly #outgoing: Outgoing | undefined;
  readonly #trace: ChainTrace | undefined;
  /** The program that the first hop needs, after its first use. */
  #plugin: PluginUse | undefined;
  #isClosed = false;

  /** @throws HostError ERR_UNSUPPORTED */
  constructor(hops: readonly Hop[], system: System, outgoing: Outgoing | undefined, trace?: ChainTrace) {
    for (const hop of hops) checkSupport(hop, system);
    this.#hops = hops;
    this.#system = system;
    this.#outgoing = outgoing;
    this.#trace = trace;
  }

  /**
   * @param timeoutMs  for the whole chain
   * @param onReached  see {@link TcpWay.connect}
   * @throws HostError ERR_CONNECT that names the step
   */
  async connect(
    server: Endpoint,
    cancellation: Cancellation,
    { timeoutMs = CONNECT_MS, onReached = () => {} }: { timeoutMs?: number; onReached?: () => void },
  ): Promise<ByteStream> {
    const hops = this.#hops;
    const system = this.#system;
    const deadline = cancellation.within(system, timeoutMs);
    /** The next address from a hop on, because some hops have none. */
    const nextEndpoint = (index: number): Endpoint =>
      hops.slice(index).find((hop) => hop.endpoint !== undefined)?.endpoint ?? server;
    let step = endpointText(nextEndpoint(0));
    let stream: ByteStream | undefined;
    try {
      stream = await this.#connectFirst(nextEndpoint(0), deadline);
      this.#trace?.(-1, stream);
      for (const [index, hop] of hops.entries()) {
        if (hop.kind === "unix") continue;
        if (deadline.isCancelled) break;
        step = hopText(hop);
        const next = nextEndpoint(index + 1);
        switch (hop.kind) {
          case "tls":
            stream = await this.#wrapTls(stream, hop.options, hop.endpoint ?? next, deadline);
            break;
          case "ws": {
            const { tls } = hop.request;
            if (tls !== undefined) stream = await this.#wrapTls(stream, tls, hop.endpoint, deadline);
            stream = await openWebSocket(system, stream, hop.request, deadline);
            break;
          }
          case "ss":
            stream = wrapInShadowsocks(
              system,
              stream,
              hop.shadowsocks,
              hop.endpoint.port,
              proxiedAddress(next),
            );
            break;
          default:
            await shakeHands(
              stream,
              handshakeFor(hop, next),
              deadline,
              index === hops.length - 1 ? onReached : undefined,
            );
        }
        this.#trace?.(index, stream);
      }
      if (deadline.isCancelled) throw new Error("the attempt was cancelled");
      onReached();
      stream.leadsOn = hops.length > 0;
      return stream;
    } catch (cause) {
      stream?.destroy();
      const { message } = cause as Error;
      const late = `nothing within ${timeoutMs} ms${stream === undefined ? ` (${message})` : ""}`;
      const reason = deadline.isExpired ? late : message;
      throw new HostError("ERR_CONNECT", `${step}: ${reason}`, { cause });
    } finally {
      deadline.release();
    }
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#plugin?.release();
    this.#plugin = undefined;
  }

  async #wrapTls(
    stream: ByteStream,
    options: TlsOptions,
    peer: Endpoint,
    cancellation: Cancellation,
  ): Promise<ByteStream> {
    return (await this.#system.wrapTls!(stream, options, tlsName(peer), cancellation)).stream;
  }

  async #connectFirst(endpoint: Endpoint, cancellation: Cancellation): Promise<ByteStream> {
    const [first] = this.#hops;
    const system = this.#system;
    if (first?.kind !== "ss" || first.shadowsocks.plugin === undefined) {
      return connectStream(system, endpoint, this.#outgoing, cancellation);
    }
    for (;;) {
      if (this.#isClosed) throw new HostError("ERR_CONNECT", "the attempt was cancelled");
      this.#plugin ??= system.usePlugin!(first.shadowsocks.plugin, first.endpoint);
      const plugin = this.#plugin;
      const local = await plugin.endpoint();
      try {
        const stream = await connectStream(system, local, undefined, cancellation);
        plugin.accepted();
        return stream;
      } catch (error) {
        if (cancellation.isCancelled || !plugin.isStarting) throw error;
        await wait(system, PLUGIN_POLL_MS);
      }
    }
  }
}

/** The name that a peer's certificate must have. */
function tlsName(peer: Endpoint): string {
  return peer.path === undefined ? splitZone(peer.host).ip : "localhost";
}

function handshakeFor(hop: Extract<Hop, { kind: "socks5" | "http" }>, next: Endpoint): ConnectHandshake {
  const address = proxiedAddress(next);
  if (hop.kind === "socks5") return new Socks5Client(address, hop.credentials);
  return new HttpConnect(endpointText(next), hop.credentials, hop.fields);
}

/** @throws UsageError ERR_OPTION when no proxy can reach the address */
function proxiedAddress(next: Endpoint): AddressBytes {
  if (next.path !== undefined) throw new UsageError("ERR_OPTION", "a proxy cannot reach a Unix socket");
  const address = makeAddress(next.host, next.port);
  if (address === undefined) throw new UsageError("ERR_OPTION", `"${next.host}" is not a host`);
  return address;
}
