import type { End } from "./hosts.ts";

/** A feature that the C library lacks, or lacks in the form that a test needs. */
export interface Lack {
  /** Path from the root of the checkout. */
  readonly file: string;
  /** Matches the names of tests, each preceded by those of its suites, with " > " between them. */
  readonly test: RegExp;
  /** The feature is missing if any of these ends is in C. */
  readonly ends: readonly End[];
  /** The test's error. */
  readonly error: RegExp;
  readonly why: string;
  /** Skips a test that would only time out. The run then cannot notice when it would pass. */
  readonly isSkipped?: boolean;
}

const HTTP2 = "HTTP/2 is a library of Node";
const DECOY = "decoys are served by libraries of Node";
const PLUGIN = "plugins of shadowsocks that are programs";
const WORKERS = "an instance has one thread";

/** The complete list. The run fails if a listed test passes, or fails for another reason. */
export const LACKS: readonly Lack[] = [
  {
    file: "test/interop/carriers.test.ts",
    test: /a stream from the caller carries the tunnel$/,
    ends: ["local"],
    error: /carrier: the C library has no such option/,
    why: "a stream of the embedder's stays in its process",
  },
  {
    file: "test/interop/http/connect-udp-http2.test.ts",
    test: /./,
    ends: ["server"],
    error: /the connection ended|exits with 52|exits with 1/,
    why: HTTP2,
  },
  {
    file: "test/interop/http/http2-hostile-clients.test.ts",
    test: /> (?!a server with a )[^>]*$/,
    ends: ["server"],
    error: /Protocol error|to be 2/,
    why: HTTP2,
  },
  {
    file: "test/interop/http/http2-hostile-clients.test.ts",
    test: /> a server with a decoy does not speak HTTP\/2$/,
    ends: ["server"],
    error: /no web server/,
    why: DECOY,
  },
  {
    file: "test/interop/http/decoy.test.ts",
    test: /./,
    ends: ["server"],
    error: /no web server/,
    why: DECOY,
  },
  {
    file: "test/interop/http/masque-h2o.test.ts",
    test: /as the proxy.* over HTTP\/2/,
    ends: ["local"],
    error: /not available in this program: HTTP\/2/,
    why: HTTP2,
  },
  {
    file: "test/interop/http/masque-h2o.test.ts",
    test: /as the client.* over HTTP\/2/,
    ends: ["server"],
    error: /closed by the server/,
    why: HTTP2,
  },
  {
    file: "test/interop/http/masque.test.ts",
    test: /over HTTP\/2(?!.*\(&http=1)|connection of HTTP\/2|by h2|offers h2,http\/1\.1 is spoken to accordingly \(\)/,
    ends: ["local"],
    error: /not available in this program: HTTP\/2|to have a length of 1|no answer/,
    why: HTTP2,
  },
  {
    file: "test/interop/http/masque.test.ts",
    test: /udp-server over HTTP\/2|a silent connection of HTTP\/2|offers h2,http\/1\.1 is spoken to accordingly \(\)/,
    ends: ["server"],
    error: /timed out/,
    why: HTTP2,
    isSkipped: true,
  },
  {
    file: "test/interop/http/masque.test.ts",
    test: /offers h2,http\/1\.1 is spoken to accordingly \(&http=1\.1\)/,
    ends: ["server"],
    error: /exits with 1/,
    why: HTTP2,
  },
  {
    file: "test/interop/shadowsocks.test.ts",
    test: /starts any other plugin once|by v2ray-plugin/,
    ends: ["local"],
    error: /a plugin that is a program/,
    why: PLUGIN,
  },
  {
    file: "test/interop/programs.test.ts",
    test: /names the file that cannot be read: \["--decoy"/,
    ends: ["server"],
    error: /to contain '\/does\/not\/exist'/,
    why: DECOY,
  },
  {
    file: "test/interop/programs.test.ts",
    test: /address of a forward is in use \["--io","plain"\]/,
    ends: ["local"],
    error: /expected 2 to be 1/,
    why: "it has only native I/O",
  },
  {
    file: "test/interop/programs.test.ts",
    test: /warns when threads were asked for in vain/,
    ends: ["server"],
    error: /has one thread|has only native I\/O/,
    why: WORKERS,
  },
  {
    file: "test/interop/programs.test.ts",
    test: /with plain I\/O, has one thread by default/,
    ends: ["server"],
    error: /has only native I\/O/,
    why: "it has only native I/O",
  },
  {
    file: "test/interop/programs.test.ts",
    test: /names the doctor once/,
    ends: ["local"],
    error: /timed out/,
    why: "it has no doctor",
  },
  {
    file: "test/interop/programs.test.ts",
    test: /tells tun2socks with plain I\/O/,
    ends: ["tun2socks"],
    error: /has only native I\/O/,
    why: "it has only native I/O",
  },
  {
    file: "test/interop/http/web-sockets.test.ts",
    test: /keeps its sessions on the listening thread/,
    ends: ["server"],
    error: /is not valid JSON/,
    why: WORKERS,
  },
  {
    file: "test/e2e/tun/carriers/masque.test.ts",
    test: /HTTP\/2/,
    ends: ["tun2socks", "server"],
    error: /ended before line|no answer|exit|still running/,
    why: HTTP2,
  },
  {
    file: "test/e2e/masque.test.ts",
    test: /HTTP\/2/,
    ends: ["local", "server"],
    error: /ended before line|no answer to a probe/,
    why: HTTP2,
  },
  {
    file: "test/interop/operation/keep-sessions.test.ts",
    test: /./,
    ends: ["server"],
    error: /not available in this program/,
    why: "sockets are not handed on to another process",
    isSkipped: true,
  },
];

/** Files whose tests start no end that could be in C. */
export const NOT_OF_C: readonly { readonly files: readonly string[]; readonly why: string }[] = [
  { files: ["test/interop/native/*.test.ts"], why: "the module for Node, its threads and packages" },
  {
    files: ["test/interop/operation/admin.test.ts", "test/interop/operation/dashboard.test.ts"],
    why: "the admin server of Node",
  },
  { files: ["test/interop/c-programs.test.ts"], why: "it has the C library at either end by itself" },
  {
    files: ["test/e2e/network/bench-link.test.ts", "test/e2e/network/two-hosts.test.ts"],
    why: "links and hosts of the tests",
  },
];
