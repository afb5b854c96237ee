import type { Datapath } from "../core/datapath/datapath.ts";
import { HostError } from "../core/errors.ts";
import type { Cryptography } from "../core/handshakes/credentials.ts";
import type { ShadowsocksCryptography } from "../core/shadowsocks/cryptography.ts";
import type { MaskBytes } from "../wire/http/websocket-frame.ts";
import type { Cancellation } from "./cancellation.ts";
import type { Plugin } from "./carriers/plugin-options.ts";
import type { PluginUse } from "./carriers/plugin-use.ts";
import type { TlsOptions } from "./carriers/tls-options.ts";
import type { Io } from "./io/io.ts";
import type { Loop } from "./loop.ts";
import type { OpenMasqueSession } from "./masque/masque-session.ts";
import type { ByteStream } from "./stream/byte-stream.ts";
import type { OpenRingFile } from "./tap/ring-file.ts";

/** An address of a network interface. */
export interface InterfaceIp {
  readonly ip: string;
  /** True for loopback. */
  readonly isInternal: boolean;
}

/** Names of the system's errors, which are negative numbers. */
export interface SystemErrors {
  /** `ECONNREFUSED`. */
  errorName(error: number): string;
  /** `connection refused (ECONNREFUSED)`. */
  errorText(error: number): string;
}

/** A connection inside TLS. */
export interface SecureStream {
  /** To be handed on. */
  readonly stream: ByteStream;
  /** The protocol that ALPN negotiated. */
  readonly protocol: string | undefined;
}

/**
 * What a host gets from its program: Node, or the C library. A member that a program lacks is undefined; code that needs it reports
 * an error.
 */
export interface System extends Loop, SystemErrors {
  /** Milliseconds since 1970, UTC. */
  unixMs(): number;
  /** Milliseconds on a clock that never goes back, and is the same in all processes of the machine. */
  sharedMs?(): number;
  readonly cryptography: Cryptography;
  readonly shadowsocks: ShadowsocksCryptography | undefined;
  readonly io: Io;
  /** The loops over datagrams, if something faster than the engine is available. */
  readonly datapath?: Datapath;
  /**
   * The system's resolver.
   *
   * @returns IP texts in its order
   * @throws Error when the name cannot be resolved
   */
  lookUp(name: string): Promise<readonly string[]>;
  /** How many look-ups the resolver carries out at a time. Default: 8. */
  readonly lookUpConcurrency?: number;
  /** IP texts of the system's resolvers, in the system's order. */
  nameservers(): readonly string[];
  /** The addresses of each network interface. */
  interfaces(): readonly (readonly InterfaceIp[])[];
  /** How many descriptors the process may have open; Infinity if unknown. */
  descriptorLimit(): number;
  /**
   * Wraps a stream, which it takes over, in TLS.
   *
   * @param host  name of the peer, unless the options have one
   * @throws Error with the reason; the stream is then destroyed
   */
  wrapTls?(
    stream: ByteStream,
    options: TlsOptions,
    host: string,
    cancellation: Cancellation,
  ): Promise<SecureStream>;
  /** Opens HTTP/2 connections to MASQUE proxies. */
  readonly openHttp2?: OpenMasqueSession;
  /** Masks WebSocket payloads faster than a script does. */
  readonly maskBytes?: MaskBytes;
  /** Uses a plugin that runs as a program. @param server  the shadowsocks server that the plugin connects to */
  usePlugin?(plugin: Plugin, server: { readonly host: string; readonly port: number }): PluginUse;
  /** Opens the files of a tap. */
  readonly openRingFile?: OpenRingFile | undefined;
  /** @throws HostError ERR_FILE that names the file */
  readFile(path: string): Uint8Array;
}

/**
 * Requires a member that a program may lack.
 *
 * @param what  its name for the user
 * @throws HostError ERR_UNSUPPORTED if it is undefined
 */
export function required<Feature>(feature: Feature | undefined, what: string): Feature {
  if (feature === undefined) throw new HostError("ERR_UNSUPPORTED", what);
  return feature;
}

/** Seconds since 1970, for formats that have them. */
export function unixSeconds(system: System): number {
  return Math.floor(system.unixMs() / 1000);
}
