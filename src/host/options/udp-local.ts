import type { IoKind } from "../io/io.ts";
import type { CommonOptions, Filled } from "./common.ts";

/** A fixed forward. */
export interface ForwardOptions {
  /**
   * `IP:PORT` of the UDP socket that applications send to; port 0 lets the system choose. If it is bound to any address, it
   * answers from the one that was asked; with plain I/O, and on Windows, from the one that routing chooses.
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

/** Those that any host has. */
export interface UdpLocalSettings extends CommonOptions {
  /** `IP:PORT` of the SOCKS5 server, false for none. Default 127.0.0.1:1234, or none when there are forwards. */
  readonly listen?: string | false | undefined;
  /**
   * `HOST:PORT` or `unix:/path` of udp-server, as the last carrier reaches it. Of several in a list, each with a session of its own,
   * the first that can be reached is used. Default 127.0.0.1:3456.
   */
  readonly server?: string | readonly string[] | undefined;
  /** Prefix that a reverse proxy before the server requires in the path, such as `/tunnel`. Default: none. */
  readonly pathPrefix?: string | undefined;
  /**
   * Carriers on the way to the server, nearest first: `socks5://`, `http://` (CONNECT; `?header=Name:%20value` adds a field
   * to the request), `ss://` (SIP002), `tls://`, `ws://` and `wss://`, which lead to the udp-server behind them, `unix:`.
   * Default: a direct TCP connection.
   */
  readonly via?: readonly string[] | undefined;
  /**
   * Ways to the server in the order of preference, instead of `via`: carriers as there with blanks between them, nearest first, and
   * at the end, if it is not `server`, the server's `HOST:PORT`. They are tried one after the other, each with a head start, and the
   * first that works is kept. At most 8, of all servers together. Default: `via` alone.
   */
  readonly ways?: readonly string[] | undefined;
  /**
   * `ss://` of a shadowsocks server (SIP002): the last carrier of `via`, and what `tcpVia` is unless it is given. Default:
   * none.
   */
  readonly shadowsocks?: string | undefined;
  /**
   * Template of a standard MASQUE proxy (RFC 9298 §2), such as `https://proxy.example/.well-known/masque/udp/{target_host}/{target_port}/`,
   * which carries datagrams instead of a udp-server; `via` leads to it. Behind `#` options of this end: `http=1.1` or `http=2`
   * (default: 1.1 for http, for https what TLS agrees on), `header=Name:%20value`, and for https `sni`, `ca`, `cert` and `key`,
   * `insecure=1`. Default: none.
   */
  readonly masque?: string | undefined;
  /**
   * Dialect of the server, which is another program: `udptunnel`, `mullvad`, `gnb`, `udpgw`, `hev`, `gost` or `uot`. Those
   * without addresses (the first three) serve forwards alone, all with the target that their server has. Default: none, as
   * the server is udp-server.
   */
  readonly dialect?: string | undefined;
  /** Default: none. */
  readonly forwards?: readonly ForwardOptions[] | undefined;
  /**
   * `socks5://[user:password@]host:port` or `ss://` for the CONNECT requests, behind other carriers, if any, with blanks between them.
   * Of several the first that can be reached is taken. Default: they are connected directly.
   */
  readonly tcpVia?: string | readonly string[] | undefined;
  /** Name of the interface for lanes and direct connections; native I/O only. Default: as routing decides. */
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
   * shared by all associations, with one worker; docs/applications.md has what this means for clients that share an IP. Default: the
   * system chooses.
   */
  readonly socksUdpPorts?: string | undefined;
  /**
   * Accepts a SOCKS5 client's datagrams only from the port that it named or first sent from. Default false: a client is
   * followed when its port changes, as behind a NAT.
   */
  readonly socksUdpStrict?: boolean | undefined;
  /**
   * `CLASS:MATCH` each, first match: the latency class of datagrams to targets, at both ends, where MATCH is `PORTS` or
   * `CIDR[:PORTS]`, such as `interactive:3478,5000-5010` or `bulk:10.0.0.0/8`, or, for tun2socks alone, `dscp=N[,N]`: the DSCP of
   * the application's packets, 0 to 63, such as `interactive:dscp=46`. Names match only rules without CIDR. An
   * association has the class of its most sensitive target, and a socket or device that several share that of the most sensitive
   * association. Default: all have `latency`.
   */
  readonly latencyRules?: readonly string[] | undefined;
  /**
   * Name that a server with keys of single clients (`keys`) has for `psk`. It is not sent, but lets the server find the key at once.
   * Default: none.
   */
  readonly keyName?: string | undefined;
  /** TCP connections of the session, 1 to 16; "auto": as many as help, up to 16, and 1 where the path is short. Default auto. */
  readonly lanes?: number | "auto" | undefined;
  /** Past it the idlest association of a forward ends, or a new one is refused; 1 to 1,000,000. Default 4,096. */
  readonly maxAssociations?: number | undefined;
  /**
   * Remote addresses in use at the same time. Past it, those that only the server registered are released, then those that
   * have been unused for long; else datagrams to a new address are dropped. 1 to 1,000,000. Default 65,536.
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

/** All options with their defaults; all text is well-formed. */
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
  /** In the order of preference, at least one. */
  readonly ways: readonly ServerWay[];
  readonly outInterface: string | undefined;
  readonly io: IoKind | undefined;
  readonly psk: Uint8Array | undefined;
  readonly keyName?: string | undefined;
  readonly listen: string | false;
  readonly pathPrefix: string | undefined;
  readonly masque: string | undefined;
  readonly dialect: string | undefined;
  /** In the order of preference; none to connect directly. */
  readonly tcpVia: readonly string[];
  readonly socksAuth: SocksCredentials | undefined;
  readonly socksUdpPorts: string | undefined;
};
