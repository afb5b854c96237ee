/** fault: it does not work, or not as it should; warning: it works, worse than it could; note: worth knowing. */
export type Severity = "fault" | "warning" | "note";

interface FindingKind {
  readonly severity: Severity;
  readonly meaning: string;
  /** What mends it; `{name}` stands for a value of the finding. */
  readonly mend: string;
}

/** Every finding of doctor by its code, which is never given another meaning. docs/operate/doctor.md is written from this table. */
export const FINDINGS = {
  "config-bad": {
    severity: "fault",
    meaning: "An option, the configuration file or the key file is missing or wrong.",
    mend: "correct what the line names; --help lists all options",
  },
  "key-exposed": {
    severity: "warning",
    meaning: "Other users of the machine can read a secret.",
    mend: "chmod 600 {file}",
  },
  "clock-off": {
    severity: "fault",
    meaning: "The clock of this machine is wrong by more than shadowsocks 2022 and certificates bear.",
    mend: "timedatectl set-ntp true, or set the clock by hand",
  },
  "descriptors-full": {
    severity: "fault",
    meaning: "The program may open no further descriptor.",
    mend: "ulimit -n 65536 before the start, or LimitNOFILE=65536 in the unit",
  },
  "descriptors-few": {
    severity: "warning",
    meaning: "Fewer descriptors are allowed than the options may need.",
    mend: "ulimit -n 65536 before the start, or LimitNOFILE=65536 in the unit; or a lower --max-associations",
  },
  "udp-buffer-small": {
    severity: "note",
    meaning:
      "The kernel limits receive buffers, so that bursts of UDP may be lost before they are read; 4 MiB are asked for.",
    mend: "sysctl -w net.core.rmem_max=4194304",
  },
  "name-unknown": {
    severity: "fault",
    meaning: "The name of the first hop or of the server has no address.",
    mend: "correct the name in --server or --via, or give an IP",
  },
  "name-server-silent": {
    severity: "fault",
    meaning:
      "The system's resolver does not answer, so the name of the first hop or of the server is unknown.",
    mend: "check /etc/resolv.conf, or give an IP instead of a name",
  },
  "address-dead": {
    severity: "warning",
    meaning:
      "One of the addresses of the name does not answer. Each new connection may lose a quarter of a second to it.",
    mend: "remove that address from the name's records, repair its family here, or give {address} as the server",
  },
  "tcp-refused": {
    severity: "fault",
    meaning: "The machine answers, but nothing listens at that port.",
    mend: "start what should listen at {address}, or correct the port",
  },
  "tcp-silent": {
    severity: "fault",
    meaning: "Nothing answers at that address: the machine is down, or something drops the packets.",
    mend: "open TCP port {port} in the firewalls on the way, or use another way (--way) through what lets TCP out",
  },
  "tcp-unreachable": {
    severity: "fault",
    meaning: "There is no route to that address.",
    mend: "ip route get {host}; check the network, --out-interface and the family of the address",
  },
  "socket-missing": {
    severity: "fault",
    meaning: "The Unix socket is not there, or nobody listens on it.",
    mend: "start what should listen at {address}",
  },
  "proxy-protocol": {
    severity: "fault",
    meaning: "What answers at that hop does not speak the hop's protocol.",
    mend: "correct the scheme or the port of {hop}",
  },
  "proxy-credentials": {
    severity: "fault",
    meaning: "The proxy wants another user and password, or other means of proof.",
    mend: "put USER:PASSWORD@ into the URL of {hop}, percent-encoded",
  },
  "proxy-forbids": {
    severity: "fault",
    meaning: "The proxy does not connect to that address or port by its rules.",
    mend: "have the server listen at a port that the proxy allows, usually 443, or have its rules changed",
  },
  "proxy-cannot-reach": {
    severity: "fault",
    meaning: "The proxy works, but does not reach the next address.",
    mend: "start what should listen at {next}, and check the firewall between the proxy and it",
  },
  "proxy-silent": {
    severity: "fault",
    meaning: "The hop accepts the connection and then does not answer.",
    mend: "restart {hop}, and check that it is of that kind",
  },
  "proxy-closed": {
    severity: "fault",
    meaning: "The hop closes the connection instead of answering.",
    mend: "look into the log of {hop}; check the scheme and the port",
  },
  "plugin-failed": {
    severity: "fault",
    meaning: "The plugin's program cannot be started, or ends.",
    mend: "install the plugin, or give its path in plugin=",
  },
  "tls-name": {
    severity: "fault",
    meaning: "The certificate is for another name.",
    mend: "give the name that it is for: tls://?servername=NAME, wss://...?sni=NAME",
  },
  "tls-untrusted": {
    severity: "fault",
    meaning: "The certificate was not issued by an authority that this machine trusts.",
    mend: "give the issuer's certificate: ca=FILE in the options of tls:// or wss://",
  },
  "tls-time": {
    severity: "fault",
    meaning: "By the clock of this machine the certificate is not valid yet, or no longer.",
    mend: "set the clock (timedatectl set-ntp true); if it is right, renew the certificate",
  },
  "tls-not-spoken": {
    severity: "fault",
    meaning: "What answers there does not speak TLS.",
    mend: "leave tls:// out, or write ws:// for wss://, or correct the port",
  },
  "tls-refused": {
    severity: "fault",
    meaning:
      "The peer ends the handshake of TLS: it wants a certificate of the client, or another name or version.",
    mend: "give cert=FILE and key=FILE, or servername=NAME",
  },
  "websocket-refused": {
    severity: "fault",
    meaning: "The web server has no WebSocket at that path.",
    mend: "udp-server --ws-path with the same path as ws://HOST/PATH, passed on by the web server (docs/use/reverse-proxies.md)",
  },
  "shadowsocks-silent": {
    severity: "fault",
    meaning:
      "The shadowsocks server does not answer, as when the password, the method or the plugin is another.",
    mend: "compare method, password and plugin with the config.json of the server",
  },
  "shadowsocks-clock": {
    severity: "fault",
    meaning:
      "The shadowsocks server does not answer. Of the 2022 edition it does that for a clock that is off by more than 30 s, too.",
    mend: "timedatectl set-ntp true at both ends; then compare method and key. --test-clock http://HOST/ measures the clock",
  },
  "shadowsocks-key": {
    severity: "fault",
    meaning:
      "What the shadowsocks server answers cannot be decrypted: the method or the password is another, or bytes are changed on the way.",
    mend: "compare method and password with the config.json of the server; pass what changes the bytes by, such as a proxy that inspects them",
  },
  "obfs-mismatch": {
    severity: "fault",
    meaning:
      "The answer is not that of the obfs plugin: the server has another plugin, another mode, or none.",
    mend: "compare plugin and obfs= with the server's --plugin and --plugin-opts",
  },
  "no-answer": {
    severity: "fault",
    meaning: "The connection stands, but nothing answers the upgrade.",
    mend: "check that udp-server listens at {server}, and that each hop before it is of the kind that --via says",
  },
  "closed-unanswered": {
    severity: "fault",
    meaning:
      "The connection is closed instead of an answer: a relay that does not reach udp-server, or another program.",
    mend: "start udp-server at {server}, where the last hop looks for it",
  },
  "key-wrong": {
    severity: "fault",
    meaning: "The server answers, and has another key.",
    mend: "copy the key file of udp-server here; sha256sum of both must agree",
  },
  "key-expired": {
    severity: "fault",
    meaning: "The server knows the key, and it has expired.",
    mend: "have a new key made: udp-server keygen NAME, and its row put into the server's keys.json (docs/operate/keys.md)",
  },
  "key-name": {
    severity: "fault",
    meaning: "The server knows the key by another name.",
    mend: "correct --key-name to the name of the row in the server's keys.json, or leave it out",
  },
  "key-missing": {
    severity: "fault",
    meaning: "The server wants a key, and none is given.",
    mend: "--psk-file FILE with the key of udp-server",
  },
  "key-unproven": {
    severity: "fault",
    meaning: "The server does not prove that it has the key: it has none or another, or is not the server.",
    mend: "start udp-server with --psk-file and the same key; if it has it, do not trust what is on the way",
  },
  "request-changed": {
    severity: "fault",
    meaning:
      "The key is right, but the request arrived changed: a proxy rewrites the path, or does not pass Upgrade and Connection on.",
    mend: "nginx: proxy_pass http://HOST:PORT; without a path, proxy_http_version 1.1, proxy_set_header Upgrade and Connection (docs/use/reverse-proxies.md)",
  },
  "upgrade-not-passed": {
    severity: "fault",
    meaning: "A web server answers and does not upgrade.",
    mend: "have it pass the path on to udp-server, with Upgrade and Connection (docs/use/reverse-proxies.md); --path-prefix if it has one",
  },
  "path-unknown": {
    severity: "fault",
    meaning: "A web server answers that has nothing at that path.",
    mend: "--path-prefix PATH as the web server has it, or a location for /.well-known/masque/ there",
  },
  redirected: {
    severity: "fault",
    meaning: "A web server redirects to another address.",
    mend: "give the address that it redirects to: tls:// and port 443 if it is https, and its host as --server",
  },
  "web-forbidden": {
    severity: "fault",
    meaning: "A web server forbids the request, or wants a user and a password.",
    mend: "exempt /.well-known/masque/ there: the key of udp-server protects it",
  },
  "server-down": {
    severity: "fault",
    meaning: "The web server before udp-server does not reach it.",
    mend: "start udp-server where proxy_pass leads",
  },
  "server-limit": {
    severity: "fault",
    meaning: "The server is at one of its limits.",
    mend: "udp-server --max-tunnels, --max-sessions; its log and docs/reference/metrics.md name the limit",
  },
  "requests-repeated": {
    severity: "fault",
    meaning: "Something on the way sends requests twice.",
    mend: "have the proxy not retry: proxy_next_upstream off in nginx",
  },
  "tls-expected": {
    severity: "fault",
    meaning: "What answers there expects TLS.",
    mend: "--via tls:// before the server, or wss:// for ws://",
  },
  "other-server": {
    severity: "fault",
    meaning: "Something else than udp-server answers there.",
    mend: "correct the port of {server}, or start udp-server there",
  },
  "other-dialect": {
    severity: "fault",
    meaning: "The server speaks the format of another tunnel.",
    mend: "--dialect {dialect}, or start udp-server there",
  },
  "no-extension": {
    severity: "fault",
    meaning:
      "The server answers as a standard MASQUE proxy (RFC 9298): it is one, or what is before it removes the field Underpass.",
    mend: "--masque TEMPLATE instead of --server, or have the proxy pass the field Underpass on",
  },
  "way-dead": {
    severity: "warning",
    meaning: "One of several ways does not work, and another one does.",
    mend: "what is said of the fault there; or remove that --way",
  },
  "lanes-missing": {
    severity: "warning",
    meaning: "Fewer connections stand than --lanes asks for.",
    mend: "have the hops allow more connections, or lower --lanes",
  },
  "heartbeat-lost": {
    severity: "fault",
    meaning: "The upgrade succeeds and then nothing comes back.",
    mend: "check for a proxy on the way that buffers (proxy_buffering off), or inspects what follows",
  },
  "session-broken": {
    severity: "fault",
    meaning: "The session was up and broke while it was examined.",
    mend: "raise the time-outs and limits of long connections at the hops (nginx: proxy_read_timeout, HAProxy: timeout tunnel); the log of udp-server may say why it ended",
  },
  "lane-broken": {
    severity: "warning",
    meaning: "One of several connections broke while the session was examined; what was on it came late.",
    mend: "raise the time-outs and limits of long connections at the hops (nginx: proxy_read_timeout, HAProxy: timeout tunnel)",
  },
  "dns-silent": {
    severity: "fault",
    meaning: "A DNS query through the tunnel is not answered.",
    mend: "check that {target} is a name server and that udp-server reaches it; forward to another one",
  },
  "dns-error": {
    severity: "fault",
    meaning: "The name server answers with an error.",
    mend: "ask a name server that serves the server's network: --forward LISTEN=OTHER:53",
  },
  "target-private": {
    severity: "fault",
    meaning:
      "udp-server does not send to that address by its policy: private, loopback, denied, or its own network.",
    mend: "udp-server --allow {target}",
  },
  "target-closed": {
    severity: "fault",
    meaning: "The target's machine answers that nothing listens at that UDP port.",
    mend: "start what should listen at {target}",
  },
  "target-unreachable": {
    severity: "fault",
    meaning: "The server has no way to the target, according to ICMP.",
    mend: "on the server: ip route get {host}; check its network and family",
  },
  "interface-missing": {
    severity: "fault",
    meaning: "The interface of --out-interface is not there, or is down.",
    mend: "ip link; give the interface of the default route",
  },
  "path-mtu": {
    severity: "fault",
    meaning:
      "Small packets pass and full ones are lost: a link has a smaller MTU, and the ICMP that says so is dropped.",
    mend: "let ICMP fragmentation-needed through, or nft add rule inet filter forward tcp flags syn tcp option maxseg size set rt mtu",
  },
  "echo-silent": {
    severity: "fault",
    meaning: "The UDP target does not answer.",
    mend: "check that an echo service runs at {target}, and the firewalls between udp-server and it",
  },
  "stun-silent": {
    severity: "warning",
    meaning: "The STUN server does not answer.",
    mend: "check its address; it has to be reachable from udp-server by UDP",
  },
  "nat-symmetric": {
    severity: "warning",
    meaning:
      "Each target sees another port (address-dependent mapping, RFC 4787): calls and games between peers need a relay.",
    mend: "give udp-server a public address of its own, or a NAT with endpoint-independent mapping (nft: masquerade persistent)",
  },
  "fragments-lost": {
    severity: "warning",
    meaning: "Datagrams beyond one packet do not reach the target: fragments are dropped on the way.",
    mend: "let fragments through behind udp-server; applications: at most {size} bytes a datagram",
  },
  "delayed-acks": {
    severity: "fault",
    meaning:
      "A relay on the way holds data back until the ACK for what it sent before, which comes up to 40 ms later (Nagle against delayed ACKs).",
    mend: "{cure}",
  },
  "no-measure": {
    severity: "note",
    meaning: "The server does not measure by direction: it is older, or another program.",
    mend: "update udp-server",
  },
  "delay-steps": {
    severity: "warning",
    meaning: "Delay varies by more than the age budget, so that datagrams are dropped as too old.",
    mend: "look for what fills the queue on the way; more --lanes; a larger --age-budget-ms trades loss for delay",
  },
  "datagrams-lost": {
    severity: "warning",
    meaning: "Datagrams are lost between udp-server and the target, or were dropped in a queue.",
    mend: "udp-local status and udp-server status have the drops by reason",
  },
  "native-missing": {
    severity: "fault",
    meaning: "A TUN device needs the native module, which was not built.",
    mend: "npm run build:native, with a C compiler",
  },
  "device-missing": {
    severity: "fault",
    meaning: "There is no TUN device, and none can be made.",
    mend: "modprobe tun; in a container: --device /dev/net/tun",
  },
  "device-rights": {
    severity: "fault",
    meaning: "A TUN device may not be made or set up.",
    mend: "run as root, or with CAP_NET_ADMIN",
  },
  "device-busy": {
    severity: "fault",
    meaning: "Another program has this device.",
    mend: "end that program, or --device tun:OTHER",
  },
  "route-taken": {
    severity: "fault",
    meaning: "A route to be set exists already.",
    mend: "ip route del {route}, or another --route",
  },
  "route-loop": {
    severity: "fault",
    meaning: "What tun2socks sends itself would enter its own device.",
    mend: "--out-interface {interface}, or --out-mark with a rule, or a route for {host} past the device",
  },
  "route-none": {
    severity: "note",
    meaning: "No route leads to the device.",
    mend: "--route 0.0.0.0/0 --out-interface NAME, or routes of your own",
  },
  "dns-leak": {
    severity: "warning",
    meaning: "DNS queries of this machine do not enter the device, so that the network sees the names.",
    mend: "--route {resolver}/32, or name a resolver in /etc/resolv.conf whose route leads to the device",
  },
  "ipv6-leak": {
    severity: "warning",
    meaning: "All of IPv4 enters the device, and IPv6 does not.",
    mend: "--route ::/0, or turn IPv6 off",
  },
} as const satisfies Readonly<Record<string, FindingKind>>;

export type FindingCode = keyof typeof FINDINGS;

/** Something that a check has found. */
export interface Finding {
  readonly code: FindingCode;
  readonly severity: Severity;
  readonly meaning: string;
  /** Why it is believed. */
  readonly evidence: readonly string[];
  readonly mend: string;
}

/**
 * @param evidence  why it is believed, in the order of weight
 * @param values    of what mends it
 */
export function finding(
  code: FindingCode,
  evidence: readonly (string | undefined)[],
  values: Readonly<Record<string, string>> = {},
): Finding {
  const { severity, meaning, mend } = FINDINGS[code];
  return {
    code,
    severity,
    meaning,
    evidence: evidence.filter((line) => line !== undefined),
    mend: mend.replace(/\{(\w+)\}/g, (_, name: string) => values[name] ?? name.toUpperCase()),
  };
}
