/** The meanings of the labels of counters, and what to do if a count rises. A new reason is a row here. */
import type { UnreachableKind } from "../../wire/capsule.ts";

export interface Explanation {
  /** What happened, in one sentence. */
  readonly meaning: string;
  /** What an operator can do, or "None" and why; "" for what is no loss. */
  readonly remedy: string;
}

type Explanations = Readonly<Record<string, Explanation>>;

/** Why datagrams were dropped. */
export const DROPS = {
  age: {
    meaning:
      "The datagram waited longer than the age budget, for a connection or in the send queue, or arrived too late behind a lost TCP segment.",
    remedy:
      "If there is no session, check the path to the server; the log has the reason. Otherwise the path carries less than is sent, or loses segments: use more lanes or a faster path. A larger --age-budget-ms drops fewer datagrams, but delays more of them.",
  },
  queue_full: {
    meaning: "The send queue was full, and the flow with the most bytes in it lost its oldest datagram.",
    remedy: "More is sent than the path carries: send less, or raise --queue-bytes for bursts.",
  },
  no_lane: {
    meaning:
      "No connection of the session was up to carry the datagram, or the session ended while it waited.",
    remedy: "Check the path to the server. The log reports why lanes end.",
  },
  unknown_context: {
    meaning:
      "This end does not have the datagram's context, or the context or its association ended while the datagram waited.",
    remedy: "A few after a reconnection are normal. If it continues, update both ends.",
  },
  refused_target: {
    meaning: "The server's policy denies the target.",
    remedy: "To permit the target, add it to --allow of udp-server.",
  },
  filtered: {
    meaning: "The association had not sent anything to this sender, or the policy denies the sender.",
    remedy: "None for scans and late answers. --filtering of udp-server decides which senders are accepted.",
  },
  unresolved: {
    meaning:
      "The name of the target has no address, or could not be looked up in time, or its client has too many slow names.",
    remedy:
      "Check DNS on the server, and the name that the application asks for. Half of UV_THREADPOOL_SIZE (4) names are looked up at a time.",
  },
  context_limit: {
    meaning: "The limit of contexts was reached: none could be evicted, or the datagram's own was evicted.",
    remedy: "Raise --max-contexts if you expect this many targets.",
  },
  association_limit: {
    meaning:
      "The limit of associations or sockets was reached: none could be evicted, or the datagram's own was evicted.",
    remedy: "Raise --max-associations and the limit of descriptors (ulimit -n).",
  },
  too_long: {
    meaning: "The datagram is longer than its protocol or the next hop can carry.",
    remedy: "Configure the application to send smaller datagrams.",
  },
  fragment: {
    meaning: "A SOCKS5 datagram was a fragment (FRAG is not 0), which is not supported.",
    remedy: "Turn fragmentation off in the SOCKS5 client.",
  },
  malformed: {
    meaning: "The datagram or its SOCKS5 header could not be parsed.",
    remedy: "Check which program sends to this port.",
  },
  wrong_source: {
    meaning: "The datagram arrived at a SOCKS5 relay from an address other than the client's.",
    remedy:
      "Check that the client sends from the host that made the request. Otherwise, somebody may be scanning.",
  },
  foreign_source: {
    meaning: "An answer to a fixed forward came from an address other than its target.",
    remedy:
      "If answers come from another address, use SOCKS5 or tun2socks. If only the port differs, use any-port.",
  },
  rate_limit: {
    meaning: "The datagram exceeded the rate of its key.",
    remedy:
      "If the limit is too low, raise bits-per-second or datagrams-per-second of the key in the file of --keys.",
  },
  send_error: {
    meaning:
      "The system did not send the datagram, or a SOCKS5 server or a DNS server over TCP did not answer.",
    remedy: "Check routes, the firewall, the size of socket buffers (net.core.wmem_max), and the DNS server.",
  },
} as const satisfies Explanations;

/** Why a peer or a request was refused, or something was evicted for it. */
export const REFUSALS = {
  half_open_limit: {
    meaning: "Too many connections were still in their handshake.",
    remedy: "Scanners cause this. Raise --max-half-open if you have this many clients.",
  },
  tunnel_limit: {
    meaning: "The limit of tunnels was reached.",
    remedy: "Raise --max-tunnels, or find the clients that reconnect too often.",
  },
  session_limit: { meaning: "The limit of sessions was reached.", remedy: "Raise --max-sessions." },
  session_evicted: {
    meaning: "A session that lingered without a connection ended early to make room.",
    remedy: "Raise --max-sessions, or lower --linger.",
  },
  association_limit: {
    meaning: "The limit of associations was reached, and none could be evicted.",
    remedy: "Raise --max-associations.",
  },
  association_evicted: {
    meaning: "An idle association ended early to make room for a new one.",
    remedy: "Raise --max-associations if applications notice.",
  },
  context_limit: {
    meaning: "The limit of contexts was reached, and a registration was refused.",
    remedy: "Raise --max-contexts.",
  },
  target_denied: {
    meaning: "The policy denies the target that was asked for.",
    remedy: "To permit the target, add it to --allow of udp-server.",
  },
  bad_credentials: {
    meaning: "The client has another key, or none.",
    remedy: "Compare the key files of both ends. Strangers on the internet also cause this.",
  },
  key_expired: {
    meaning: "The client has a key that has expired.",
    remedy: "Set a later date or a new key in the file of --keys.",
  },
  key_name: {
    meaning: "The client's key has another name here, or its clock is hours off.",
    remedy: "Compare --key-name of the client with the file of --keys.",
  },
  key_search_limit: {
    meaning: "Requests without the id of a key arrived faster than the server can try all keys.",
    remedy: "Strangers cause this. It does not affect clients with --key-name.",
  },
  key_association_limit: {
    meaning: "The holder of a key has as many associations as max-associations allows.",
    remedy: "If the limit is too low, raise it in the file of --keys.",
  },
  key_session_ended: {
    meaning: "A session ended because its key had expired, or was removed or changed.",
    remedy: "None if that was intended. Otherwise, give the client a valid key in the file of --keys.",
  },
  draining: {
    meaning: "The server is shutting down and accepts no more lanes.",
    remedy: "None: the client moves to another server if it has one.",
  },
  replay: {
    meaning: "The same handshake had been used before.",
    remedy: "Proxies may repeat requests. Otherwise, somebody is replaying a recording.",
  },
  nonce_limit: {
    meaning: "More handshakes arrived than the server can remember.",
    remedy: "None: the client tries again by itself. If this continues, find out who connects so often.",
  },
  challenged: {
    meaning: "The client was asked to prove that its handshake is fresh.",
    remedy:
      "None: the client answers by itself. If this happens every time, compare the clocks of both ends.",
  },
  not_upgrade: {
    meaning: "The connection did not begin with a request for a tunnel.",
    remedy:
      "Browsers and scanners cause this. If it is one of your clients, a proxy is changing its requests.",
  },
  handshake_timeout: {
    meaning: "The connection did not finish its handshake in time.",
    remedy: "Port scanners cause this; for clients, check the path for loss.",
  },
  protocol_error: {
    meaning: "The peer broke the protocol, and its connection was closed.",
    remedy: "Update both ends. The log has the error code.",
  },
  socks_refused: {
    meaning: "A SOCKS5 request was refused because of its credentials, command or address, or a limit.",
    remedy: "Check the settings of the SOCKS5 client; --log-level debug reports each.",
  },
  http2_flood: {
    meaning: "An HTTP/2 client sent an excessive number of control frames, and was cut off.",
    remedy: "Find out who connects: no well-behaved client does this.",
  },
} as const satisfies Explanations;

/** Reports of datagrams that did not get through. */
export const UNREACHABLES = {
  port: {
    meaning: "Nothing listens on the target's port.",
    remedy: "Start the target's service, or correct the port that the application uses.",
  },
  host: {
    meaning: "The target's host or network cannot be reached.",
    remedy: "Check routes and IPv6 of the server.",
  },
  prohibited: {
    meaning: "The server's policy, or a firewall, forbids the target.",
    remedy: "See --allow and --deny of udp-server.",
  },
  "too-big": {
    meaning: "The datagram is too big for a link on its way; the report has the MTU.",
    remedy: "Applications that heed the report send smaller datagrams.",
  },
  limited: {
    meaning: "A report was suppressed by the rate limit.",
    remedy:
      "None: later datagrams are reported again. Find the application that sends so many to targets that do not answer.",
  },
} as const satisfies Readonly<Record<UnreachableKind | "limited", Explanation>>;

/** Counts of sessions with receipts: lateness, copies, parity and duplicates. */
export const SPREADS = {
  late: {
    meaning: "A lane became late: a lost segment held up the datagrams after it.",
    remedy: "Many of these indicate a lossy path; more lanes hide it better.",
  },
  copies: { meaning: "A second copy of a sparse flow's datagram was sent.", remedy: "" },
  hedges: { meaning: "A datagram was sent once more because it was stuck on a late lane.", remedy: "" },
  parities: {
    meaning: "A parity was sent, from which the other end restores a datagram on a late lane.",
    remedy: "",
  },
  restored: { meaning: "A datagram was restored from a parity before it arrived.", remedy: "" },
  duplicates: { meaning: "A second copy arrived and was dropped. Nothing is lost.", remedy: "" },
} as const satisfies Explanations;

/** How sessions with receipts set their rate. */
export const RATE_MODES = {
  start: { meaning: "The rate is not known yet.", remedy: "" },
  delay: { meaning: "The rate follows the delay, which keeps the queue short.", remedy: "" },
  compete: { meaning: "The session competes with others that fill the queue of the path.", remedy: "" },
} as const satisfies Explanations;

/** The direction of datagrams. */
export const DIRECTIONS = {
  in: { meaning: "Out of a tunnel.", remedy: "" },
  out: { meaning: "Into a tunnel.", remedy: "" },
} as const satisfies Explanations;
