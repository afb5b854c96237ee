import type { Filtering } from "../../core/server/server-associations.ts";
import type { IoKind } from "../io/io.ts";
import type { CommonOptions, Filled } from "./common.ts";
import type { KeyOption } from "./keys.ts";

export interface UdpServerOptions extends CommonOptions {
  /**
   * Addresses to listen on: `IP:PORT`, `unix:/path`, `fd:N` (a listening socket that the process was given), or `ss://` (SIP002) with
   * an IP. The latter is a shadowsocks server, where a client that asks for any of the other addresses, or for 127.0.0.1:3456 if there is
   * none, gets a tunnel. Without a key only loopback, Unix sockets and `ss://`. Default 127.0.0.1:3456, or none if `shadowsocks` is
   * given.
   */
  readonly listen?: readonly string[] | undefined;
  /** An additional `ss://` (SIP002) to listen on. Default: none. */
  readonly shadowsocks?: string | undefined;
  /**
   * How `ss://` clients reach targets other than the tunnel, which `allow` and `deny` have to permit: `direct`,
   * `socks5://[user:password@]host:port` or `off`. Default `off`: such connections end.
   */
  readonly ssRelay?: string | undefined;
  /**
   * Keys of single clients, with names, expiry and limits, beside `psk`, which all clients share. Clients should set the name of their key
   * (`keyName`); otherwise the server has to try all keys. At most 4,096. `replaceKeys` can change keys later, but not add the first
   * ones to a server that was started without `keys`. Default: none.
   */
  readonly keys?: readonly KeyOption[] | undefined;
  /** Listens anywhere without a key: anyone who reaches the server can send through it. Default false. */
  readonly insecureOpenRelay?: boolean | undefined;
  /** `CIDR[:ports]` that are permitted although the defaults deny them. Default: none. */
  readonly allow?: readonly string[] | undefined;
  /** `CIDR[:ports]` that are denied, regardless of `allow`. Default: none. */
  readonly deny?: readonly string[] | undefined;
  /**
   * Which senders an association accepts (RFC 4787 §5). A client of RFC 9298 that binds chooses itself. Default
   * address-dependent.
   */
  readonly filtering?: Filtering | undefined;
  /** How long a session without lanes keeps its sockets and may resume, 0 to 86,400 s. Default 60. */
  readonly lingerS?: number | undefined;
  /**
   * How datagrams leave: `sockets`; `socks5://[user:password@]host:port`, a server with UDP ASSOCIATE;
   * `socks5-udp://host:port`, a relay that does not need it (`ss-local -U`); or IP packets to `tun2socks:WAY` (within the process;
   * WAY is its `udpVia`, default `direct`), to `unix:/path` (a tun2socks that listens there) or to `exec:PROGRAM ARGUMENT...` (a
   * tun2socks to start, with `--device pipe:`). The last two imply one thread. Default sockets.
   */
  readonly egress?: string | undefined;
  /**
   * IPs that targets see, at most one per family, for RFC 9298 clients that bind (Proxy-Public-Address). Default: those of the
   * interface that the client connected to.
   */
  readonly publicAddress?: readonly string[] | undefined;
  /**
   * Number of this server behind a load balancer, 0 to 16,777,215. The ids of its sessions contain it, so that a balancer can send their
   * lanes to this server (docs/operate/many-servers.md). Default: none.
   */
  readonly serverId?: number | undefined;
  /**
   * How long the server waits on shutdown for its clients to move to others, 0 to 600 s. It accepts no more lanes meanwhile. Default 0:
   * it does not wait.
   */
  readonly drainS?: number | undefined;
  /**
   * Keeps sessions and the UDP sockets of their associations while systemd restarts the service, in its file descriptor store
   * (docs/operate/operating.md): clients resume, and targets see the same ports. Linux with native I/O; `egress` must be sockets. Default
   * false.
   */
  readonly keepSessions?: boolean | undefined;
  /**
   * Path, such as `/tunnel`, at which a WebSocket carries a tunnel's connection. Such sessions stay in the thread that listens.
   * Default: none.
   */
  readonly wsPath?: string | undefined;
  /**
   * Dialects of other UDP-over-TCP programs to accept on all of `listen` except `ss://`, recognised by their first bytes: `udptunnel`,
   * `gnb`, `udpgw`, `hev`, `gost`, `uot`; each text may list several, separated by commas. `ss://` also accepts `uot`. Clients of
   * dialects prove no key, so only loopback and Unix sockets are allowed, unless `insecureOpenRelay`. `mullvad`, or any other, may
   * have its own listener, `mullvad://IP:PORT` in `listen`. Default: none.
   */
  readonly dialects?: readonly string[] | undefined;
  /**
   * `HOST:PORT` for the datagrams of udptunnel, mullvad and gnb, which have no addresses; `allow` and `deny` have to permit it.
   * Required for these dialects.
   */
  readonly dialectTarget?: string | undefined;
  /**
   * What strangers see instead of 404: a folder of files, or `http://HOST[:PORT][/PATH]` or `https://` of a web server that gets
   * their requests. At most `maxHalfOpen` at a time. Default: none.
   */
  readonly decoy?: string | undefined;
  /**
   * Limit of tunnels past their handshake. Past it, requests are answered with 503; past three quarters of it, so are requests for
   * one more lane of a session. 1 to 1,000,000. Default 8,192.
   */
  readonly maxTunnels?: number | undefined;
  /** Limit of connections in their handshake. Past it, the oldest is closed. 1 to 1,000,000. Default 256. */
  readonly maxHalfOpen?: number | undefined;
  /**
   * Limit of sessions. Past it, the session that has been without lanes longest ends; if all have lanes, requests are answered with
   * 503. 1 to 1,000,000. Default 1,024.
   */
  readonly maxSessions?: number | undefined;
  /**
   * Limit of sessions without lanes that may resume. Past it, the one that has been without lanes longest ends. 0 to 1,000,000.
   * Default 256.
   */
  readonly maxLingering?: number | undefined;
  /**
   * Limit of associations, each with its UDP sockets. Past it, the session with most associations loses its idlest one. 1 to
   * 1,000,000. Default 16,384.
   */
  readonly maxAssociations?: number | undefined;
  /**
   * Limit of one session's associations. Past it, the idlest with at most one answer ends; if there is none, the new one is
   * refused. 1 to 1,000,000. Default 4,096.
   */
  readonly maxAssociationsPerSession?: number | undefined;
  /**
   * Limit of a session's remote addresses. Senders that the client did not register may take up to half of it, and are evicted for
   * those that it registers; past the limit, registrations are refused. 1 to 1,000,000. Default 65,536.
   */
  readonly maxContextsPerSession?: number | undefined;
  /** Deadline for the whole of a client's request, 100 to 60,000 ms. Default 5,000. */
  readonly handshakeTimeoutMs?: number | undefined;
  /** Idle time after which an association ends, 1 to 86,400 s. Default 600. */
  readonly idleTimeoutS?: number | undefined;
}

/** All options with their defaults; all text is well-formed. */
export type ResolvedUdpServerOptions = Filled<
  Omit<UdpServerOptions, "shadowsocks">,
  | "psk"
  | "tap"
  | "keys"
  | "serverId"
  | "drainS"
  | "keepSessions"
  | "io"
  | "wsPath"
  | "decoy"
  | "dialectTarget"
> & {
  readonly keys?: readonly KeyOption[] | undefined;
  readonly serverId?: number | undefined;
  readonly drainS?: number | undefined;
  readonly keepSessions?: boolean | undefined;
  readonly dialectTarget: string | undefined;
  readonly decoy: string | undefined;
  readonly wsPath: string | undefined;
  readonly io: IoKind | undefined;
  readonly tap: string | undefined;
  readonly psk: Uint8Array | undefined;
};
