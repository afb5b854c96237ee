import type { Datapath } from "../core/datapath/datapath.ts";
import type { AeadName } from "../core/shadowsocks/method.ts";
import type { NativeModule } from "../host/io/native-module.ts";
import type { MaskBytes } from "../wire/http/websocket-frame.ts";
import type { AddressBytes } from "../wire/socket-address.ts";

declare const IS_CIPHER: unique symbol;
declare const IS_TLS: unique symbol;
declare const IS_STREAM: unique symbol;

/** An object of C. */
export interface Cipher {
  readonly [IS_CIPHER]: true;
}

/** An object of C: a client of TLS. */
export interface Tls {
  readonly [IS_TLS]: true;
}

/** An object of C: a stream of the embedder's. */
export interface EmbedderStream {
  readonly [IS_STREAM]: true;
}

/** Those that checking the options needs. */
export interface FileHost extends Pick<NativeModule, "interfaceIpv4"> {
  /** @throws Error for what is not PEM, and for a key that is another certificate's */
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
  /** @returns a number for {@link timerCancel}, which is given out again once it has called back or was cancelled */
  timerStart(delayMs: number, callback: () => void): number;
  timerCancel(timer: number): void;
  /** Sets what {@link requestTurn} calls. */
  setTurn(onTurn: () => void): void;
  /** Has it called once, in the next turn of the loop. */
  requestTurn(): void;
  /** HMAC-SHA-256. */
  hmac(key: Uint8Array, data: Uint8Array): Uint8Array;
  random(length: number): Uint8Array;
  maskBytes: MaskBytes;
  md5(data: Uint8Array): Uint8Array;
  hkdfSha1(key: Uint8Array, salt: Uint8Array, info: Uint8Array, length: number): Uint8Array;
  /** An AEAD cipher with its key, for the two below. */
  aead(name: AeadName, key: Uint8Array): Cipher;
  /** As `seal` of AeadCipher. */
  aeadSeal(
    cipher: Cipher,
    nonce: Uint8Array,
    plain: Uint8Array,
    from: number,
    end: number,
    to: Uint8Array,
    at: number,
  ): number;
  /** As `open` of AeadCipher. */
  aeadOpen(
    cipher: Cipher,
    nonce: Uint8Array,
    sealed: Uint8Array,
    from: number,
    end: number,
  ): Uint8Array | undefined;
  /**
   * A client of TLS; files in PEM.
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
  /** Takes what came. */
  tlsReceive(tls: Tls, bytes: Uint8Array, offset: number, end: number): void;
  /** @returns whether the handshake is complete. @throws Error with the reason for its failure */
  tlsHandshake(tls: Tls): boolean;
  /** @returns bytes in the buffer; 0 when more has to come, -1 when the peer has ended */
  tlsRead(tls: Tls, buffer: Uint8Array): number;
  /** Encrypts them for {@link tlsOutput}. */
  tlsWrite(tls: Tls, bytes: Uint8Array): void;
  /** What is to be sent. */
  tlsOutput(tls: Tls): Uint8Array;
  /** What came behind the handshake. */
  tlsSurplus(tls: Tls): Uint8Array;
  /** That of ALPN. */
  tlsProtocol(tls: Tls): string | undefined;
  /**
   * Has the embedder open a stream.
   *
   * @param onEvent  called when it was reported to be writable, or something is to be read
   * @throws Error when there is none
   */
  carrierOpen(onEvent: (isWritable: boolean) => void): EmbedderStream;
  /** @returns how many bytes were taken; after less than all, the event of being writable follows */
  carrierWrite(stream: EmbedderStream, bytes: Uint8Array): number;
  /** @returns bytes in the buffer; 0 when more has to come, -1 when it is closed */
  carrierRead(stream: EmbedderStream, buffer: Uint8Array): number;
  /** Why it was closed; undefined for an orderly end. */
  carrierReason(stream: EmbedderStream): string | undefined;
  /** Afterwards no event comes. */
  carrierClose(stream: EmbedderStream): void;
  /**
   * To be called once, when {@link Instance.openAssociations} is.
   *
   * @param rows         offset and length in the arena of each datagram's payload, then of its target
   * @param onDatagrams  gets how many rows of an association are to be sent
   */
  associationsSetup(
    arena: Uint8Array,
    rows: Int32Array,
    onDatagrams: (association: number, count: number) => void,
    onClosed: (association: number) => void,
  ): void;
  /** A datagram for the embedder, which is copied. */
  associationDeliver(
    association: number,
    data: Uint8Array,
    offset: number,
    length: number,
    source: AddressBytes,
  ): void;
  /** @param kind  as on the wire */
  associationRefuse(association: number, target: AddressBytes, kind: number, mtu: number): void;
  /** To be called once: memory for the embedder's packets, and what is called when there are some. */
  packetsSetup(
    arena: Uint8Array,
    offsets: Int32Array,
    lengths: Int32Array,
    onPackets: (count: number) => void,
  ): void;
  /** Packets for the embedder, as of tunWrite. @returns how many were dropped */
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
   * @param argv     program and arguments, without a shell
   * @param onExit   gets how it has ended, once
   * @returns its number, and a descriptor of a stream to its standard input and from its output
   * @throws Error with the system's code
   */
  processSpawn?(argv: readonly string[], onExit: (text: string) => void): [child: number, descriptor: number];
  /** Asks it to end. */
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
  /** False if nobody reads the log. */
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
  /** Everything is closed: the last call. */
  stopped(status: number): void;
}

export type EventKind = "session-up" | "session-down" | "session-resumed" | "unreachable" | "error";

/** What an instance is started with: the fields of the C struct that are set. */
export interface StartOptions {
  readonly program: "local" | "server" | "tun2socks";
  /** JSON. */
  readonly config?: string;
  readonly server?: string;
  readonly psk?: Uint8Array;
  readonly listen?: readonly string[];
  readonly forwards?: readonly string[];
  readonly hasCarrier?: boolean;
  /** Of tun2socks: text, unless packets come by functions. */
  readonly device?: string;
  readonly hasPackets?: boolean;
  /** Of tun2socks: checking the options returns the plan. */
  readonly wantsPlan?: boolean;
}

/** The functions of an instance. */
export interface Instance {
  stop(): void;
  /** Of udp-local: connects again at once. */
  reconnect?(): void;
  /** Of udp-local: the embedder has an association. */
  openAssociations?(): void;
  /** As many numbers as capi/src/instance.h lists, in its order. */
  stats(): Float64Array;
  /** All of them, in JSON. */
  report(): string;
}

/** Why there is no instance. */
export interface StartFailure {
  /** Negative. */
  readonly status: number;
  readonly text: string;
}
