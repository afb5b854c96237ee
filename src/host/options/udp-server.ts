import type { Filtering } from "../../core/server/server-associations.ts";
import type { IoKind } from "../io/io.ts";
import type { CommonOptions, Filled } from "./common.ts";
import type { KeyOption } from "./keys.ts";

export interface UdpServerOptions extends CommonOptions {
  /**
   * Each `IP:PORT` or `unix:/path` to listen on, `fd:N` (a listening socket that the process was given), or `ss://` (SIP002) with an IP: a shadowsocks server, where a client that
   * asks for any of the others, or for 127.0.0.1:3456 if there is none, gets a tunnel. Without a key only loopback, Unix
   * sockets and `ss://`. Default 127.0.0.1:3456, or none where `shadowsocks` is given.
   */
  readonly listen?: readonly string[] | undefined;
  /** `ss://` (SIP002) to listen on, too. Default: none. */
  readonly shadowsocks?: string | undefined;
  /**
   * Where clients of `ss://` get to that ask for another target, which `allow` and `deny` have to permit: `direct`,
   * `socks5://[user:password@]host:port` or `off`. Default `off`: their connections end.
   */
  readonly ssRelay?: string | undefined;
  /**
   * Keys of single clients, beside `psk`, which is everybody's: with names, expiry and limits. The holders of a key that is known by a
   * name should give that name (`keyName`), or else the server has to try all keys. At most 4,096. Default: none, which cannot be
   * changed later, as the keys can.
   */
  readonly keys?: readonly KeyOption[] | undefined;
  /** Listens anywhere without a key, so that anyone who reaches the server can send through it. Default false. */
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
   * `socks5-udp://host:port`, a relay that needs none (`ss-local -U`); or IP packets to `tun2socks:WAY` (within the process;
   * WAY is its `udpVia`, default `direct`), to `unix:/path` (a tun2socks that listens there) or to
   * `exec:PROGRAM ARGUMENT...` (one that is started, with `--device pipe:`). The last two imply one thread. Default sockets.
   */
  readonly egress?: string | undefined;
  /**
   * IPs that targets see, at most one per family, which clients of RFC 9298 that bind get (Proxy-Public-Address). Default:
   * those of the interface that the client connected to.
   */
  readonly publicAddress?: readonly string[] | undefined;
  /**
   * Number of this server among several behind a load balancer, 0 to 16,777,215, which the ids of its sessions show, so that their
   * lanes can be sent to it (docs/many-servers.md). Default: none.
   */
  readonly serverId?: number | undefined;
  /**
   * How long the end of the server waits for its clients to begin sessions at others, 0 to 600 s. It takes no more lanes meanwhile.
   * Default 0: it does not wait.
   */
  readonly drainS?: number | undefined;
  /**
   * Path, such as `/tunnel`, at which a WebSocket carries a tunnel's connection. Such sessions stay with the thread that
   * listens. Default: none.
   */
  readonly wsPath?: string | undefined;
  /**
   * Dialects of other UDP-over-TCP programs that are understood on all of `listen` but `ss://`, told by their first bytes:
   * `udptunnel`, `gnb`, `udpgw`, `hev`, `gost`, `uot`; each text may have several, with commas between them. `uot` also on
   * `ss://`. Their clients prove no key: loopback and Unix sockets only, unless `insecureOpenRelay`. `mullvad`, or any other,
   * may have a listener of its own, `mullvad://IP:PORT` in `listen`. Default: none.
   */
  readonly dialects?: readonly string[] | undefined;
  /**
   * `HOST:PORT` for the datagrams of udptunnel, mullvad and gnb, which have no addresses; `allow` and `deny` have to permit it.
   * Required for these.
   */
  readonly dialectTarget?: string | undefined;
  /**
   * What strangers see, instead of 404: a folder of files, or `http://HOST[:PORT][/PATH]` or `https://` of a web server to which
   * their requests are passed on. At most `maxHalfOpen` at a time. Default: none.
   */
  readonly decoy?: string | undefined;
  /**
   * Tunnels past their handshake. Past it, requests are answered with 503; past three quarters of it, those for one more lane of a
   * session. 1 to 1,000,000. Default 8,192.
   */
  readonly maxTunnels?: number | undefined;
  /** Connections within their handshake. Past it, the oldest is closed. 1 to 1,000,000. Default 256. */
  readonly maxHalfOpen?: number | undefined;
  /**
   * Past it, the session that has been without lanes longest ends; if all have lanes, requests are answered with 503.
   * 1 to 1,000,000. Default 1,024.
   */
  readonly maxSessions?: number | undefined;
  /**
   * Sessions without lanes that may resume. Past it, the one that has been without lanes longest ends. 0 to 1,000,000.
   * Default 256.
   */
  readonly maxLingering?: number | undefined;
  /**
   * Of the whole process, each with its UDP sockets. Past it, the session that has most loses its idlest one. 1 to
   * 1,000,000. Default 16,384.
   */
  readonly maxAssociations?: number | undefined;
  /**
   * Past it, the idlest that got no more than one answer ends; if there is none, the new one is refused. 1 to 1,000,000.
   * Default 4,096.
   */
  readonly maxAssociationsPerSession?: number | undefined;
  /**
   * Remote addresses of a session. Senders that the client did not register may take up to half, and are evicted for those
   * that it registers; past it, registrations are refused. 1 to 1,000,000. Default 65,536.
   */
  readonly maxContextsPerSession?: number | undefined;
  /** For the whole of a client's request, 100 to 60,000 ms. Default 5,000. */
  readonly handshakeTimeoutMs?: number | undefined;
  /** Idle time after which an association ends, 1 to 86,400 s. Default 600. */
  readonly idleTimeoutS?: number | undefined;
}

/** All options with their defaults; all text is well-formed. */
export type ResolvedUdpServerOptions = Filled<
  Omit<UdpServerOptions, "shadowsocks">,
  "psk" | "tap" | "keys" | "serverId" | "drainS" | "io" | "wsPath" | "decoy" | "dialectTarget"
> & {
  readonly keys?: readonly KeyOption[] | undefined;
  readonly serverId?: number | undefined;
  readonly drainS?: number | undefined;
  readonly dialectTarget: string | undefined;
  readonly decoy: string | undefined;
  readonly wsPath: string | undefined;
  readonly io: IoKind | undefined;
  readonly tap: string | undefined;
  readonly psk: Uint8Array | undefined;
};
