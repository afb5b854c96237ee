import type { Duplex } from "node:stream";
import { setTimeout as wait } from "node:timers/promises";
import type { ConnectHandshake } from "../core/connect-handshake.ts";
import { HostError, UsageError } from "../core/errors.ts";
import { HttpConnect } from "../core/http-connect.ts";
import { Socks5Client } from "../core/socks5-client.ts";
import type { Endpoint } from "../host/addresses/endpoint.ts";
import { formatEndpoint, parseEndpoint, splitZone } from "../host/addresses/endpoint.ts";
import type { Outgoing } from "../host/addresses/outgoing.ts";
import { isLoopback } from "../host/addresses/outgoing.ts";
import type { Cancellation } from "../host/cancellation.ts";
import type { Hop } from "../host/carriers/hop.ts";
import { badHop, endpointText, hopText, parseHop } from "../host/carriers/hop.ts";
import type { TlsOptions } from "../host/carriers/tls-options.ts";
import { splitWay } from "../host/carriers/way.ts";
import type { Io } from "../host/io/io.ts";
import type { ByteStream } from "../host/stream/byte-stream.ts";
import { isDomain } from "../wire/capsule.ts";
import type { AddressBytes } from "../wire/socket-address.ts";
import { addressPort, formatHost, makeAddress } from "../wire/socket-address.ts";
import { COMMAND_UDP_ASSOCIATE } from "../wire/socks5.ts";
import { PlainStream } from "./byte-stream-plain.ts";
import type { Carrier } from "./carrier.ts";
import type { PluginUse } from "./carriers/plugin-process.ts";
import { usePlugin } from "./carriers/plugin-process.ts";
import { shakeHands } from "./carriers/proxy.ts";
import { wrapInShadowsocks } from "./carriers/shadowsocks.ts";
import { connectStream } from "./carriers/socket.ts";
import { checkTlsFiles, wrapInTls } from "./carriers/tls.ts";
import { openWebSocket } from "./carriers/web-socket.ts";
import { nodeLoop } from "./system.ts";

const CONNECT_MS = 10_000;
/** Time between attempts to connect to a plugin that has been started. */
const PLUGIN_POLL_MS = 20;

export interface CarrierChainOptions {
  /** `HOST:PORT`, `[IPv6]:PORT` or `unix:/path`. */
  readonly server: string;
  /** Hops, nearest first: `socks5://`, `http://`, `ss://`, `tls://`, `ws://`, `wss://`, `unix:`. */
  readonly via: readonly string[];
  /** For the whole chain, in milliseconds. Default 10,000. */
  readonly connectTimeoutMs?: number;
  /** Interface or mark of the first connection. Default: as routing decides. */
  readonly outgoing?: Outgoing | undefined;
}

/** A carrier chain that was read: what it leads to, and by which hops. */
export interface CarrierChain extends Pick<Carrier, "description" | "authority" | "isLocal"> {
  readonly endpoint: Endpoint;
  readonly hops: readonly Hop[];
}

/**
 * Parses `--server` and the `--via` list. A proxy is reached through the hops before it and asked to connect to the next
 * address; `tls://` wraps the connection to the next address, or, with its own address, connects to that and wraps it. A
 * WebSocket's server decides itself where it leads, which should be the next address.
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

/** As {@link parseCarrierChain}, to connect by. */
export function openCarrierChain(options: CarrierChainOptions, io: Io): Carrier {
  const { outgoing, connectTimeoutMs } = options;
  const { endpoint, hops, ...carrier } = parseCarrierChain(options);
  const chain = new HopChain(hops, io, outgoing);
  return {
    ...carrier,
    connect: async (cancellation) => ({
      stream: await chain.connect(endpoint, cancellation, connectTimeoutMs),
    }),
    close: () => chain.close(),
  };
}

/** @throws UsageError ERR_OPTION when a program would have to leave by `outgoing` */
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
    throw new UsageError("ERR_OPTION", `via: no proxy can reach ${text}, as its zone is of this machine`);
  }
}

/** True if a proxy is the last hop with an address, and so connects to the server. @param via  well-formed */
export function isBehindProxy(via: readonly string[]): boolean {
  const last = via.map(parseHop).findLast((hop) => hop.endpoint !== undefined);
  return last !== undefined && isProxy(last);
}

/** True if the hop connects to the next address, wherever that is. */
function isProxy({ kind }: Hop): boolean {
  return kind === "socks5" || kind === "http" || kind === "ss";
}

function tlsOf(hop: Hop): TlsOptions | undefined {
  if (hop.kind === "tls") return hop.options;
  return hop.kind === "ws" ? hop.request.tls : undefined;
}

/** Checks the files of a `--via`, which are read again for each connection. @returns what is wrong with them */
export function findTlsProblem(text: string): string | undefined {
  const hop = parseHop(text, 0);
  try {
    const tls = tlsOf(hop);
    if (tls !== undefined) checkTlsFiles(tls);
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

/** A carrier that the embedding program makes. */
export function streamCarrier(
  open: (signal: AbortSignal) => Duplex | Promise<Duplex>,
  { native }: Io,
): Carrier {
  return {
    description: "the caller's stream",
    authority: "localhost",
    isLocal: false,
    connect: async (cancellation) => {
      const abort = new AbortController();
      cancellation.onCancel(() => abort.abort());
      return { stream: new PlainStream(await open(abort.signal), native) };
    },
    close: async () => {},
  };
}

/** A way to TCP targets. */
export interface TcpWay {
  /** Connects. The stream is to be handed on. @throws HostError ERR_CONNECT */
  connect(target: AddressBytes, cancellation: Cancellation): Promise<ByteStream>;
  /** Ends what it has started. */
  close(): Promise<void>;
}

/** @param via  hops with blanks between them, nearest first, the last `socks5://` or `ss://`; undefined to connect directly */
export function tcpWay(via: string | undefined, io: Io, outgoing?: Outgoing): TcpWay {
  const hops = via === undefined ? [] : splitWay(via).via.map(parseHop);
  checkPlugin(hops, outgoing);
  const chain = new HopChain(hops, io, outgoing);
  return {
    connect: (target, cancellation) =>
      chain.connect({ host: formatHost(target), port: addressPort(target) }, cancellation),
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
  io: Io,
  cancellation: Cancellation,
  outgoing?: Outgoing,
): Promise<UdpAssociate> {
  const hop = parseHop(url, 0);
  if (hop.kind !== "socks5") throw badHop(url, "expected socks5://");
  const stream = await new HopChain([], io, outgoing).connect(hop.endpoint, cancellation);
  const unknown = makeAddress("0.0.0.0", 0)!;
  const handshake = new Socks5Client(unknown, hop.credentials, COMMAND_UDP_ASSOCIATE);
  const deadline = cancellation.within(nodeLoop, CONNECT_MS);
  try {
    await shakeHands(stream, handshake, deadline);
  } finally {
    deadline.release();
  }
  const { remoteIp } = stream;
  if (remoteIp === undefined) {
    stream.destroy();
    throw new HostError("ERR_CONNECTION_LOST", "by the proxy");
  }
  return { stream, bound: handshake.bound!, peer: remoteIp };
}

/** Connects through a list of hops. */
class HopChain {
  readonly #hops: readonly Hop[];
  readonly #io: Io;
  readonly #outgoing: Outgoing | undefined;
  /** The program that the first hop needs, once it was needed. */
  #plugin: PluginUse | undefined;
  #isClosed = false;

  constructor(hops: readonly Hop[], io: Io, outgoing: Outgoing | undefined) {
    this.#hops = hops;
    this.#io = io;
    this.#outgoing = outgoing;
  }

  /** @param timeoutMs  for all of it. @throws HostError ERR_CONNECT that names the step */
  async connect(server: Endpoint, cancellation: Cancellation, timeoutMs = CONNECT_MS): Promise<ByteStream> {
    const hops = this.#hops;
    const { native } = this.#io;
    const deadline = cancellation.within(nodeLoop, timeoutMs);
    /** The next address from a hop on, as some hops have none. */
    const nextEndpoint = (index: number): Endpoint =>
      hops.slice(index).find((hop) => hop.endpoint !== undefined)?.endpoint ?? server;
    let step = endpointText(nextEndpoint(0));
    let stream: ByteStream | undefined;
    try {
      stream = await this.#connectFirst(nextEndpoint(0), deadline);
      for (const [index, hop] of hops.entries()) {
        if (hop.kind === "unix") continue;
        if (deadline.isCancelled) break;
        step = hopText(hop);
        const next = nextEndpoint(index + 1);
        switch (hop.kind) {
          case "tls":
            stream = (await wrapInTls(stream, hop.options, tlsName(hop.endpoint ?? next), deadline, native))
              .stream;
            break;
          case "ws": {
            const { tls } = hop.request;
            if (tls !== undefined) {
              stream = (await wrapInTls(stream, tls, tlsName(hop.endpoint), deadline, native)).stream;
            }
            stream = await openWebSocket(stream, hop.request, deadline, native);
            break;
          }
          case "ss":
            stream = wrapInShadowsocks(stream, hop.shadowsocks, hop.endpoint.port, proxiedAddress(next));
            break;
          default:
            await shakeHands(stream, handshakeFor(hop, next), deadline);
        }
      }
      if (deadline.isCancelled) throw new Error("given up");
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

  async #connectFirst(endpoint: Endpoint, cancellation: Cancellation): Promise<ByteStream> {
    const [first] = this.#hops;
    const { tcp } = this.#io;
    if (first?.kind !== "ss" || first.shadowsocks.plugin === undefined) {
      return connectStream(tcp, endpoint, this.#outgoing, cancellation);
    }
    for (;;) {
      if (this.#isClosed) throw new HostError("ERR_CONNECT", "given up");
      this.#plugin ??= usePlugin(first.shadowsocks.plugin, first.endpoint);
      const plugin = this.#plugin;
      const local = await plugin.endpoint();
      try {
        const stream = await connectStream(tcp, local, undefined, cancellation);
        plugin.accepted();
        return stream;
      } catch (error) {
        if (cancellation.isCancelled || !plugin.isStarting) throw error;
        await wait(PLUGIN_POLL_MS);
      }
    }
  }
}

/** The name that a peer's certificate must be for. */
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
  if (address === undefined) throw new UsageError("ERR_OPTION", `"${next.host}" is no host`);
  return address;
}
