/** fault: something does not work as it should; warning: it works, but worse than it could; note: worth knowing. */
export type Severity = "fault" | "warning" | "note";

interface FindingKind {
  readonly severity: Severity;
  readonly meaning: string;
  /** The fix; `{name}` stands for a value of the finding. */
  readonly mend: string;
}

/** Every finding of doctor by its code, which never changes its meaning. docs/operate/doctor.md is generated from this table. */
export const FINDINGS = {
  "config-bad": {
    severity: "fault",
    meaning: "An option, the configuration file or the key file is missing or wrong.",
    mend: "correct the option that the message names; --help lists all options",
  },
  "key-exposed": {
    severity: "warning",
    meaning: "Other users of the machine can read a secret.",
    mend: "chmod 600 {file}",
  },
  "clock-off": {
    severity: "fault",
    meaning: "The clock of this machine is off by more than shadowsocks 2022 and certificates tolerate.",
    mend: "timedatectl set-ntp true, or set the clock by hand",
  },
  "descriptors-full": {
    severity: "fault",
    meaning: "The program has reached its limit of descriptors.",
    mend: "ulimit -n 65536 before starting it, or LimitNOFILE=65536 in the unit",
  },
  "descriptors-few": {
    severity: "warning",
    meaning: "The limit of descriptors is lower than the options may need.",
    mend: "ulimit -n 65536 before starting it, or LimitNOFILE=65536 in the unit; or a lower --max-associations",
  },
  "udp-buffer-small": {
    severity: "note",
    meaning:
      "The kernel limits receive buffers to less than the 4 MiB that the program asks for, so bursts of UDP may be lost before they are read.",
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
    mend: "remove that address from the name's records, repair its address family on this machine, or give {address} as the server",
  },
  "tcp-refused": {
    severity: "fault",
    meaning: "The machine answers, but nothing listens on that port.",
    mend: "start the program that should listen at {address}, or correct the port",
  },
  "tcp-silent": {
    severity: "fault",
    meaning: "Nothing answers at that address: the machine is down, or something drops the packets.",
    mend: "open TCP port {port} in the firewalls on the way, or use another way (--way) that gets out",
  },
  "tcp-unreachable": {
    severity: "fault",
    meaning: "There is no route to that address.",
    mend: "ip route get {host}; check the network, --out-interface and the address family",
  },
  "socket-missing": {
    severity: "fault",
    meaning: "The Unix socket does not exist, or nothing listens on it.",
    mend: "start the program that should listen at {address}",
  },
  "proxy-protocol": {
    severity: "fault",
    meaning: "The program that answers at that hop does not speak the hop's protocol.",
    mend: "correct the scheme or the port of {hop}",
  },
  "proxy-credentials": {
    severity: "fault",
    meaning: "The proxy rejects the user and password, or requires another authentication method.",
    mend: "put USER:PASSWORD@ into the URL of {hop}, percent-encoded",
  },
  "proxy-forbids": {
    severity: "fault",
    meaning: "The proxy's rules forbid that address or port.",
    mend: "have the server listen on a port that the proxy allows, usually 443, or have the rules changed",
  },
  "proxy-cannot-reach": {
    severity: "fault",
    meaning: "The proxy works, but cannot reach the next address.",
    mend: "start the program that should listen at {next}, and check the firewall between the proxy and it",
  },
  "proxy-silent": {
    severity: "fault",
    meaning: "The hop accepts the connection and then does not answer.",
    mend: "restart {hop}, and check that it speaks that protocol",
  },
  "proxy-closed": {
    severity: "fault",
    meaning: "The hop closes the connection instead of answering.",
    mend: "read the log of {hop}; check the scheme and the port",
  },
  "plugin-failed": {
    severity: "fault",
    meaning: "The plugin's program does not start, or exits.",
    mend: "install the plugin, or give its path in plugin=",
  },
  "tls-name": {
    severity: "fault",
    meaning: "The certificate is for another name.",
    mend: "give the certificate's name: tls://?servername=NAME, wss://...?sni=NAME",
  },
  "tls-untrusted": {
    severity: "fault",
    meaning: "The certificate was not issued by an authority that this machine trusts.",
    mend: "give the issuer's certificate: ca=FILE in the options of tls:// or wss://",
  },
  "tls-time": {
    severity: "fault",
    meaning: "By this machine's clock, the certificate is not valid yet, or has expired.",
    mend: "set the clock (timedatectl set-ntp true); if it is right, renew the certificate",
  },
  "tls-not-spoken": {
    severity: "fault",
    meaning: "The program that answers there does not speak TLS.",
    mend: "remove tls://, write ws:// instead of wss://, or correct the port",
  },
  "tls-refused": {
    severity: "fault",
    meaning:
      "The peer aborts the TLS handshake: it requires a client certificate, or another name or TLS version.",
    mend: "give cert=FILE and key=FILE, or servername=NAME",
  },
  "websocket-refused": {
    severity: "fault",
    meaning: "The web server has no WebSocket at that path.",
    mend: "give udp-server --ws-path the path of ws://HOST/PATH, and have the web server pass it on (docs/use/reverse-proxies.md)",
  },
  "shadowsocks-silent": {
    severity: "fault",
    meaning:
      "The shadowsocks server does not answer, which usually means that the password, method or plugin differs.",
    mend: "compare method, password and plugin with the config.json of the server",
  },
  "shadowsocks-clock": {
    severity: "fault",
    meaning:
      "The shadowsocks server does not answer. In the 2022 edition, a clock that is off by more than 30 s also causes this.",
    mend: "timedatectl set-ntp true at both ends; then compare method and key. --test-clock http://HOST/ measures the clock",
  },
  "shadowsocks-key": {
    severity: "fault",
    meaning:
      "The shadowsocks server's answer cannot be decrypted: the method or password differs, or something on the way changes bytes.",
    mend: "compare method and password with the config.json of the server; bypass anything that changes bytes, such as an inspecting proxy",
  },
  "obfs-mismatch": {
    severity: "fault",
    meaning:
      "The answer does not come from the obfs plugin: the server has another plugin, another mode, or none.",
    mend: "compare plugin and obfs= with the server's --plugin and --plugin-opts",
  },
  "no-answer": {
    severity: "fault",
    meaning: "The connection opens, but nothing answers the upgrade.",
    mend: "check that udp-server listens at {server}, and that each hop before it speaks the protocol that --via names",
  },
  "closed-unanswered": {
    severity: "fault",
    meaning:
      "The connection closes without an answer: a relay cannot reach udp-server, or another program listens there.",
    mend: "start udp-server at {server}, where the last hop expects it",
  },
  "key-wrong": {
    severity: "fault",
    meaning: "The server answers, but has another key.",
    mend: "copy the key file of udp-server here; sha256sum must print the same for both",
  },
  "key-expired": {
    severity: "fault",
    meaning: "The server knows the key, but it has expired.",
    mend: "ask for a new key: udp-server keygen NAME makes it, and its row goes into the server's keys.json (docs/operate/keys.md)",
  },
  "key-name": {
    severity: "fault",
    meaning: "The server knows the key by another name.",
    mend: "set --key-name to the name of the row in the server's keys.json, or leave it out",
  },
  "key-missing": {
    severity: "fault",
    meaning: "The server requires a key, and none is given.",
    mend: "--psk-file FILE with the key of udp-server",
  },
  "key-unproven": {
    severity: "fault",
    meaning:
      "The server does not prove that it has the key: it has none or another, or something else answers in its place.",
    mend: "start udp-server with --psk-file and the same key; if it has that key, do not trust the hops on the way",
  },
  "request-changed": {
    severity: "fault",
    meaning:
      "The key is right, but the request arrived changed: a proxy rewrites the path, or does not pass Upgrade and Connection on.",
    mend: "nginx: proxy_pass http://HOST:PORT; without a path, proxy_http_version 1.1, proxy_set_header Upgrade and Connection (docs/use/reverse-proxies.md)",
  },
  "upgrade-not-passed": {
    severity: "fault",
    meaning: "A web server answers, but does not upgrade.",
    mend: "have it pass the path on to udp-server, with Upgrade and Connection (docs/use/reverse-proxies.md); set --path-prefix if the path has one",
  },
  "path-unknown": {
    severity: "fault",
    meaning: "A web server answers, but has nothing at that path.",
    mend: "set --path-prefix to the web server's prefix, or add a location for /.well-known/masque/ there",
  },
  redirected: {
    severity: "fault",
    meaning: "A web server redirects to another address.",
    mend: "use the address that it redirects to: its host as --server and, if it is https, --via tls:// and port 443",
  },
  "web-forbidden": {
    severity: "fault",
    meaning: "A web server forbids the request, or requires a user and a password.",
    mend: "exempt /.well-known/masque/ there: the key of udp-server protects it",
  },
  "server-down": {
    severity: "fault",
    meaning: "The web server in front of udp-server cannot reach it.",
    mend: "start udp-server at the address that proxy_pass names",
  },
  "server-limit": {
    severity: "fault",
    meaning: "The server is at one of its limits.",
    mend: "raise --max-tunnels or --max-sessions of udp-server; its log and docs/reference/metrics.md name the limit",
  },
  "requests-repeated": {
    severity: "fault",
    meaning: "Something on the way sends requests twice.",
    mend: "turn off retries in the proxy: proxy_next_upstream off in nginx",
  },
  "tls-expected": {
    severity: "fault",
    meaning: "The program that answers there expects TLS.",
    mend: "add --via tls:// before the server, or write wss:// instead of ws://",
  },
  "other-server": {
    severity: "fault",
    meaning: "A program other than udp-server answers there.",
    mend: "correct the port of {server}, or start udp-server there",
  },
  "other-dialect": {
    severity: "fault",
    meaning: "The server speaks the format of another tunnel.",
    mend: "use --dialect {dialect}, or start udp-server there",
  },
  "no-extension": {
    severity: "fault",
    meaning:
      "The server answers as a standard MASQUE proxy (RFC 9298): it is one, or a proxy in front of it removes the field Underpass.",
    mend: "use --masque TEMPLATE instead of --server, or have the proxy pass the field Underpass on",
  },
  "way-dead": {
    severity: "warning",
    meaning: "One of several ways does not work, but another does.",
    mend: "apply the fix for that fault, or remove that --way",
  },
  "lanes-missing": {
    severity: "warning",
    meaning: "Fewer connections are open than --lanes asks for.",
    mend: "have the hops allow more connections, or lower --lanes",
  },
  "heartbeat-lost": {
    severity: "fault",
    meaning: "The upgrade succeeds, but nothing comes back after it.",
    mend: "check for a proxy on the way that buffers (proxy_buffering off) or inspects the bytes that follow",
  },
  "session-broken": {
    severity: "fault",
    meaning: "The session was up, but broke during the examination.",
    mend: "raise the time-outs and limits of long connections at the hops (nginx: proxy_read_timeout, HAProxy: timeout tunnel); the log of udp-server may say why it ended",
  },
  "lane-broken": {
    severity: "warning",
    meaning: "One of several connections broke during the examination; the datagrams on it arrived late.",
    mend: "raise the time-outs and limits of long connections at the hops (nginx: proxy_read_timeout, HAProxy: timeout tunnel)",
  },
  "dns-silent": {
    severity: "fault",
    meaning: "A DNS query through the tunnel gets no answer.",
    mend: "check that {target} is a name server that udp-server can reach, or forward to another",
  },
  "dns-error": {
    severity: "fault",
    meaning: "The name server answers with an error.",
    mend: "use a name server that serves the server's network: --forward LISTEN=OTHER:53",
  },
  "target-private": {
    severity: "fault",
    meaning:
      "udp-server's policy forbids that address: it is private, loopback, denied, or in the server's own network.",
    mend: "start udp-server with --allow {target}",
  },
  "target-closed": {
    severity: "fault",
    meaning: "The target's machine answers that nothing listens on that UDP port.",
    mend: "start the program that should listen at {target}",
  },
  "target-unreachable": {
    severity: "fault",
    meaning: "ICMP reports that the server cannot reach the target.",
    mend: "on the server: ip route get {host}; check its network and address family",
  },
  "interface-missing": {
    severity: "fault",
    meaning: "The interface of --out-interface does not exist, or is down.",
    mend: "ip link lists interfaces; use that of the default route",
  },
  "path-mtu": {
    severity: "fault",
    meaning:
      "Small packets pass, but full ones are lost: a link has a smaller MTU, and something drops the ICMP that reports it.",
    mend: "let ICMP fragmentation-needed through, or nft add rule inet filter forward tcp flags syn tcp option maxseg size set rt mtu",
  },
  "echo-silent": {
    severity: "fault",
    meaning: "The UDP target does not answer.",
    mend: "check that an echo service runs at {target}, and check the firewalls between udp-server and it",
  },
  "stun-silent": {
    severity: "warning",
    meaning: "The STUN server does not answer.",
    mend: "check its address; it has to be reachable from udp-server by UDP",
  },
  "nat-symmetric": {
    severity: "warning",
    meaning:
      "Each target sees a different port (address-dependent mapping, RFC 4787), so calls and games between peers need a relay.",
    mend: "give udp-server a public address of its own, or a NAT with endpoint-independent mapping (nft: masquerade persistent)",
  },
  "fragments-lost": {
    severity: "warning",
    meaning:
      "Datagrams larger than one packet do not reach the target: something on the way drops fragments.",
    mend: "let fragments through between udp-server and the target, or have applications send at most {size} bytes in a datagram",
  },
  "delayed-acks": {
    severity: "fault",
    meaning:
      "A relay on the way holds data back until its previous data is acknowledged, up to 40 ms later (Nagle's algorithm and delayed ACKs).",
    mend: "{cure}",
  },
  "no-measure": {
    severity: "note",
    meaning: "The server does not measure each direction: it is an older version, or another program.",
    mend: "update udp-server",
  },
  "delay-steps": {
    severity: "warning",
    meaning: "Delay varies by more than the age budget, so datagrams are dropped as too old.",
    mend: "find what fills the queue on the way, or use more --lanes; a larger --age-budget-ms means less loss and more delay",
  },
  "datagrams-lost": {
    severity: "warning",
    meaning: "Datagrams are lost between udp-server and the target, or were dropped in a queue.",
    mend: "udp-local status and udp-server status list the drops by reason",
  },
  "native-missing": {
    severity: "fault",
    meaning: "A TUN device needs the native module, which was not built.",
    mend: "install a C compiler and run npm run build:native",
  },
  "device-missing": {
    severity: "fault",
    meaning: "The system has no TUN devices.",
    mend: "modprobe tun; in a container: --device /dev/net/tun",
  },
  "device-rights": {
    severity: "fault",
    meaning: "The program lacks the permission to make and set up a TUN device.",
    mend: "run as root, or with CAP_NET_ADMIN",
  },
  "device-busy": {
    severity: "fault",
    meaning: "Another program holds this device.",
    mend: "end that program, or use --device tun:OTHER",
  },
  "route-taken": {
    severity: "fault",
    meaning: "One of the routes to set exists already.",
    mend: "ip route del {route}, or use another --route",
  },
  "route-loop": {
    severity: "fault",
    meaning: "The packets that tun2socks itself sends would enter its own device.",
    mend: "use --out-interface {interface}, or --out-mark with a rule, or add a route for {host} that bypasses the device",
  },
  "route-none": {
    severity: "note",
    meaning: "No route leads to the device.",
    mend: "use --route 0.0.0.0/0 --out-interface NAME, or add routes of your own",
  },
  "dns-leak": {
    severity: "warning",
    meaning: "This machine's DNS queries do not enter the device, so the network sees the names.",
    mend: "use --route {resolver}/32, or put a resolver into /etc/resolv.conf whose route leads to the device",
  },
  "ipv6-leak": {
    severity: "warning",
    meaning: "All IPv4 traffic enters the device, but IPv6 does not.",
    mend: "use --route ::/0, or turn IPv6 off",
  },
} as const satisfies Readonly<Record<string, FindingKind>>;

export type FindingCode = keyof typeof FINDINGS;

/** What a check found. */
export interface Finding {
  readonly code: FindingCode;
  readonly severity: Severity;
  readonly meaning: string;
  /** Lines of evidence, the most important first. */
  readonly evidence: readonly string[];
  readonly mend: string;
}

/**
 * @param evidence  the most important first
 * @param values    for the places in `mend`
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
