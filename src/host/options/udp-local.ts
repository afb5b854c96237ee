import type { IoKind } from "../io/io.ts";
import type { CommonOptions, Filled } from "./common.ts";

/** A fixed forward. */
export interface ForwardOptions {
  /**
   * `IP:PORT` of the UDP socket that applications send to; port 0 lets the system choose. A socket bound to any address answers from the
   * address that received the datagram; with plain I/O, and on Windows, from the one that routing chooses.
   */
  readonly listen: string;
  /** `HOST:PORT` of the target; the server resolves a domain name. */
  readonly target: string;
  /**
   * True to pass on datagrams from other ports of the target's host as the target's; otherwise they are dropped and counted
   * as `foreign_source`. Default false.
   */
  readonly anyPort?: boolean | undefined;
}

/** Name and password of SOCKS5 (RFC 1929); each 1 to 255 bytes of UTF-8. */
export interface SocksCredentials {
  readonly user: string;
  readonly password: string;
}

/** The options that every host has. */
export interface UdpLocalSettings extends CommonOptions {
  /** `IP:PORT` of the SOCKS5 server, false for none. Default 127.0.0.1:1234, or none when there are forwards. */
  readonly listen?: string | false | undefined;
  /**
   * `HOST:PORT` or `unix:/path` of udp-server, as seen from the last carrier. The first reachable server of a list is used; each has
   * its own session. Default 127.0.0.1:3456.
   */
  readonly server?: string | readonly string[] | undefined;
  /** Prefix that a reverse proxy in front of the server requires in the path, such as `/tunnel`. Default: none. */
  readonly pathPrefix?: string | undefined;
  /**
   * Carriers on the way to the server, nearest first: `socks5://`, `http://` (CONNECT; `?header=Name:%20value` adds a field
   * to the request), `ss://` (SIP002), `tls://`, `ws://` and `wss://`, which lead to the udp-server behind them, `unix:`.
   * Default: a direct TCP connection.
   */
  readonly via?: readonly string[] | undefined;
  /**
   * Ways to the server in order of preference, instead of `via`: carriers as in `via`, separated by blanks, nearest first, followed by
   * the server's `HOST:PORT` unless it is `server`. They are tried one after the other, each with a head start, and the first that
   * works is kept. At most 8 for all servers together. Default: only `via`.
   */
  readonly ways?: readonly string[] | undefined;
  /**
   * `ss://` of a shadowsocks server (SIP002), which becomes the last carrier of `via`, and `tcpVia` unless that is given. Default:
   * none.
   */
  readonly shadowsocks?: string | undefined;
  /**
   * Template of a standard MASQUE proxy (RFC 9298 §2), such as `https://proxy.example/.well-known/masque/udp/{target_host}/{target_port}/`,
   * which carries datagrams instead of a udp-server; `via` applies to the connection to it. Options for this end follow a `#`:
   * `http=1.1` or `http=2` (default: 1.1 for http, what TLS negotiates for https), `header=Name:%20value`, and for https `sni`, `ca`,
   * `cert`, `key` and `insecure=1`. Default: none.
   */
  readonly masque?: string | undefined;
  /**
   * Dialect of a server that is another program: `udptunnel`, `mullvad`, `gnb`, `udpgw`, `hev`, `gost` or `uot`. Dialects
   * without addresses (the first three) serve only forwards, all with the target of their server. Default: none, for udp-server.
   */
  readonly dialect?: string | undefined;
  /** Default: none. */
  readonly forwards?: readonly ForwardOptions[] | undefined;
  /**
   * `socks5://[user:password@]host:port` or `ss://` for CONNECT requests, after other carriers, if any, separated by blanks. The first
   * reachable one of several is used. Default: direct connections.
   */
  readonly tcpVia?: string | readonly string[] | undefined;
  /** Name of the interface for lanes and direct connections; native I/O only. By default, routing decides. */
  readonly outInterface?: string | undefined;
  /** Mark (SO_MARK) of lanes and direct connections, 1 to 2^32 - 1; native I/O on Linux only. Default 0: none. */
  readonly outMark?: number | undefined;
  /** Name and password that SOCKS5 clients must present. Default: none. */
  readonly socksAuth?: SocksCredentials | undefined;
  /**
   * IPs, at most one per family, to which SOCKS5 clients of that family send datagrams, instead of the address of their
   * connection: for a server behind a NAT. Not used for clients on loopback. Default: none.
   */
  readonly socksAdvertise?: readonly string[] | undefined;
  /**
   * UDP ports of the SOCKS5 server: `FROM-TO`, one for each association, which is refused if none is free, or `PORT`,
   * shared by all associations, with one worker; docs/use/applications.md explains what this means for clients that share an IP.
   * Default: the system chooses.
   */
  readonly socksUdpPorts?: string | undefined;
  /**
   * Accepts a SOCKS5 client's datagrams only from the port that it named or first sent from. Default false: a client is
   * followed when its port changes, as behind a NAT.
   */
  readonly socksUdpStrict?: boolean | undefined;
  /**
   * The latency class of datagrams to targets, at both ends. Each rule is `CLASS:MATCH`, and the first match applies. MATCH is `PORTS`
   * or `CIDR[:PORTS]`, such as `interactive:3478,5000-5010` or `bulk:10.0.0.0/8`, or, for tun2socks only, `dscp=N[,N]` with the DSCP
   * of the application's packets, 0 to 63, such as `interactive:dscp=46`. Names match only rules without CIDR. An association has the
   * class of its most sensitive target, and a shared socket or device that of its most sensitive association. Default: all have
   * `latency`.
   */
  readonly latencyRules?: readonly string[] | undefined;
  /**
   * Name of `psk` in the `keys` of the server. It is not sent, but lets the server find the key at once. Default: none.
   */
  readonly keyName?: string | undefined;
  /** TCP connections of the session, 1 to 16; "auto": as many as help, up to 16, and 1 on a short path. Default auto. */
  readonly lanes?: number | "auto" | undefined;
  /** Past this limit the idlest association of a forward ends, or a new one is refused. 1 to 1,000,000. Default 4,096. */
  readonly maxAssociations?: number | undefined;
  /**
   * Remote addresses in use at the same time. Past this limit, those that only the server registered are released, then those that
   * have long been unused; otherwise datagrams to a new address are dropped. 1 to 1,000,000. Default 65,536.
   */
  readonly maxContexts?: number | undefined;
  /** Idle time after which a forward's association ends, 1 to 86,400 s. Default 60. */
  readonly idleTimeoutS?: number | undefined;
  /** The same for associations that got more than one answer, 1 to 86,400 s and at least `idleTimeoutS`. Default 300. */
  readonly activeIdleTimeoutS?: number | undefined;
}

/** A way to a server. */
export interface ServerWay {
  readonly server: string;
  readonly via: readonly string[];
}

/** All options with their defaults; every text is well-formed. */
export type ResolvedUdpLocalOptions = Filled<
  Omit<UdpLocalSettings, "server" | "via" | "ways" | "shadowsocks" | "tcpVia">,
  | "psk"
  | "tap"
  | "keyName"
  | "listen"
  | "pathPrefix"
  | "masque"
  | "dialect"
  | "socksAuth"
  | "socksUdpPorts"
  | "io"
  | "outInterface"
> & {
  readonly tap: string | undefined;
  /** In order of preference, at least one. */
  readonly ways: readonly ServerWay[];
  readonly outInterface: string | undefined;
  readonly io: IoKind | undefined;
  readonly psk: Uint8Array | undefined;
  readonly keyName?: string | undefined;
  readonly listen: string | false;
  readonly pathPrefix: string | undefined;
  readonly masque: string | undefined;
  readonly dialect: string | undefined;
  /** In order of preference; none to connect directly. */
  readonly tcpVia: readonly string[];
  readonly socksAuth: SocksCredentials | undefined;
  readonly socksUdpPorts: string | undefined;
};
