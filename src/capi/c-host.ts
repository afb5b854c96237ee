import type { Datapath } from "../core/datapath/datapath.ts";
import type { AeadName } from "../core/shadowsocks/method.ts";
import type { NativeModule } from "../host/io/native-module.ts";
import type { MaskBytes } from "../wire/http/websocket-frame.ts";
import type { AddressBytes } from "../wire/socket-address.ts";

declare const IS_CIPHER: unique symbol;
declare const IS_TLS: unique symbol;
declare const IS_STREAM: unique symbol;

/** An object in C. */
export interface Cipher {
  readonly [IS_CIPHER]: true;
}

/** An object in C: a TLS client. */
export interface Tls {
  readonly [IS_TLS]: true;
}

/** An object in C: a stream of the embedder. */
export interface EmbedderStream {
  readonly [IS_STREAM]: true;
}

/** The functions that checking the options needs. */
export interface FileHost extends Pick<NativeModule, "interfaceIpv4"> {
  /** @throws Error for a file that is not PEM, and for a key that belongs to another certificate */
  tlsCheck(ca: Uint8Array | undefined, cert: Uint8Array | undefined, key: Uint8Array | undefined): void;
  /** @throws Error with the system's code */
  readFile(path: string): Uint8Array;
}

/** The functions that capi/src/ gives the script, and those of sockets and streams. */
export interface CHost extends NativeModule, FileHost {
  readonly datapath: Datapath;
  /** Monotonic milliseconds with fractions. */
  now(): number;
  unixMs(): number;
  /** @returns a number for {@link timerCancel}, which is reused after the timer has called back or was cancelled */
  timerStart(delayMs: number, callback: () => void): number;
  timerCancel(timer: number): void;
  /** Sets what {@link requestTurn} calls. */
  setTurn(onTurn: () => void): void;
  /** Requests one call in the next turn of the loop. */
  requestTurn(): void;
  /** HMAC-SHA-256. */
  hmac(key: Uint8Array, data: Uint8Array): Uint8Array;
  random(length: number): Uint8Array;
  maskBytes: MaskBytes;
  md5(data: Uint8Array): Uint8Array;
  hkdfSha1(key: Uint8Array, salt: Uint8Array, info: Uint8Array, length: number): Uint8Array;
  /** An AEAD cipher with its key, for the two below. */
  aead(name: AeadName, key: Uint8Array): Cipher;
  /** Like `seal` of AeadCipher. */
  aeadSeal(
    cipher: Cipher,
    nonce: Uint8Array,
    plain: Uint8Array,
    from: number,
    end: number,
    to: Uint8Array,
    at: number,
  ): number;
  /** Like `open` of AeadCipher. */
  aeadOpen(
    cipher: Cipher,
    nonce: Uint8Array,
    sealed: Uint8Array,
    from: number,
    end: number,
  ): Uint8Array | undefined;
  /**
   * Opens a TLS client; files are PEM.
   *
   * @param name  of the peer, which is checked, and sent unless it is an IP
   * @param ca    certificates to trust
   */
  tlsOpen(
    name: string,
    isIp: boolean,
    ca: Uint8Array | undefined,
    cert: Uint8Array | undefined,
    key: Uint8Array | undefined,
    isInsecure: boolean,
    protocols: readonly string[] | undefined,
  ): Tls;
  /** Takes bytes that arrived. */
  tlsReceive(tls: Tls, bytes: Uint8Array, offset: number, end: number): void;
  /** @returns whether the handshake is complete. @throws Error with the reason for its failure */
  tlsHandshake(tls: Tls): boolean;
  /** @returns bytes in the buffer; 0 if more has to arrive, -1 when the peer has ended */
  tlsRead(tls: Tls, buffer: Uint8Array): number;
  /** Encrypts bytes for {@link tlsOutput}. */
  tlsWrite(tls: Tls, bytes: Uint8Array): void;
  /** Bytes to send. */
  tlsOutput(tls: Tls): Uint8Array;
  /** Bytes that arrived after the handshake. */
  tlsSurplus(tls: Tls): Uint8Array;
  /** The protocol that ALPN selected. */
  tlsProtocol(tls: Tls): string | undefined;
  /**
   * Asks the embedder to open a stream.
   *
   * @param onEvent  called when the embedder reports that the stream is writable, or that bytes can be read
   * @throws Error when the embedder opens none
   */
  carrierOpen(onEvent: (isWritable: boolean) => void): EmbedderStream;
  /** @returns how many bytes were accepted; if not all, an event reports when the stream is writable */
  carrierWrite(stream: EmbedderStream, bytes: Uint8Array): number;
  /** @returns bytes in the buffer; 0 if more has to arrive, -1 when the stream is closed */
  carrierRead(stream: EmbedderStream, buffer: Uint8Array): number;
  /** Why it was closed; undefined for an orderly end. */
  carrierReason(stream: EmbedderStream): string | undefined;
  /** No event follows. */
  carrierClose(stream: EmbedderStream): void;
  /**
   * Called once, with {@link Instance.openAssociations}.
   *
   * @param rows         offset and length in the arena of each datagram's payload, then of its target
   * @param onDatagrams  gets the number of rows to send for an association
   */
  associationsSetup(
    arena: Uint8Array,
    rows: Int32Array,
    onDatagrams: (association: number, count: number) => void,
    onClosed: (association: number) => void,
  ): void;
  /** Copies a datagram for the embedder. */
  associationDeliver(
    association: number,
    data: Uint8Array,
    offset: number,
    length: number,
    source: AddressBytes,
  ): void;
  /** @param kind  as on the wire */
  associationRefuse(association: number, target: AddressBytes, kind: number, mtu: number): void;
  /** Called once: memory for the embedder's packets, and a callback for when some have arrived. */
  packetsSetup(
    arena: Uint8Array,
    offsets: Int32Array,
    lengths: Int32Array,
    onPackets: (count: number) => void,
  ): void;
  /** Passes packets to the embedder, like tunWrite. @returns how many were dropped */
  packetsWrite(
    input: Uint8Array,
    arena: Uint8Array,
    isInput: Uint8Array,
    offsets: Int32Array,
    lengths: Int32Array,
    count: number,
  ): number;
  /**
   * Starts a program.
   *
   * @param argv    program and arguments, without a shell
   * @param onExit  called once with the way it ended
   * @returns its number, and a descriptor of a stream to its standard input and from its output
   * @throws Error with the system's code
   */
  processSpawn?(argv: readonly string[], onExit: (text: string) => void): [child: number, descriptor: number];
  /** Asks the program to end. */
  processKill?(child: number): void;
  /** @param callback  gets a system error or 0, and IP texts */
  lookUp(name: string, callback: (error: number, ips: readonly string[]) => void): void;
  interfaceAddresses(): readonly (readonly [name: string, ip: string, isInternal: boolean])[];
  /** 0 if unknown. */
  descriptorLimit(): number;
  /** Such as "EPIPE". */
  systemErrorName(error: number): string;
  /** Such as "broken pipe". */
  systemErrorText(error: number): string;
  /** False if nothing reads the log. */
  readonly hasLog: boolean;
  /** @param level  0 debug, 1 info, 2 warn, 3 error. @param fields  JSON */
  log(level: number, message: string, fields: string): void;
  /** Calls the owner's `ready`. */
  ready(
    listen: readonly string[],
    socks5: string | undefined,
    targets?: readonly string[],
    server?: string,
  ): void;
  /** Calls one of the owner's other callbacks. */
  event(kind: EventKind, status: number, text: string): void;
  /** Reports that everything is closed: the last call. */
  stopped(status: number): void;
}

export type EventKind =
  | "session-up"
  | "session-down"
  | "session-resumed"
  | "unreachable"
  | "listener-failed"
  | "error";

/** The options to start an instance: the fields of the C struct that are set. */
export interface StartOptions {
  readonly program: "local" | "server" | "tun2socks";
  /** JSON. */
  readonly config?: string;
  readonly server?: string;
  readonly psk?: Uint8Array;
  readonly listen?: readonly string[];
  readonly forwards?: readonly string[];
  readonly hasCarrier?: boolean;
  /** For tun2socks: text, unless functions pass the packets. */
  readonly device?: string;
  readonly hasPackets?: boolean;
  /** For tun2socks: checking the options returns the plan. */
  readonly wantsPlan?: boolean;
}

/** The functions of an instance. */
export interface Instance {
  stop(): void;
  /** For udp-local: connects again at once. */
  reconnect?(): void;
  /** For udp-local: reports that the embedder has an association. */
  openAssociations?(): void;
  /** The numbers that capi/src/instance.h lists, in its order. */
  stats(): Float64Array;
  /** All numbers, as JSON. */
  report(): string;
}

/** Why there is no instance. */
export interface StartFailure {
  /** Negative. */
  readonly status: number;
  readonly text: string;
}
