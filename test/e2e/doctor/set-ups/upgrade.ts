import type { SetUp } from "./set-up.ts";
import { person, QUICK, to } from "./set-up.ts";

/** Set-ups in which the upgrade is refused, or another program answers. */
export const UPGRADE: readonly SetUp[] = [
  {
    name: "another key",
    fault: "key-wrong",
    options: ({ server, ports, otherKeyFile }) => [
      "--server",
      `${server}:${ports.tunnel}`,
      "--psk-file",
      otherKeyFile,
      ...QUICK,
    ],
  },
  { name: "a key of a person", fault: undefined, options: person("aliceKeyFile", "--key-name", "alice") },
  {
    name: "a key that has expired",
    fault: "key-expired",
    options: person("expiredKeyFile", "--key-name", "bob"),
  },
  {
    name: "a key with another name",
    fault: "key-name",
    options: person("aliceKeyFile", "--key-name", "bob"),
  },
  {
    name: "a key that nobody has",
    fault: "key-wrong",
    options: person("otherKeyFile", "--key-name", "alice"),
  },
  { name: "a server at its limit", fault: "server-limit", options: to("limited") },
  {
    name: "no key",
    fault: "key-missing",
    options: ({ server, ports }) => ["--server", `${server}:${ports.tunnel}`, ...QUICK],
  },
  { name: "a server without a key", fault: "key-unproven", options: to("open") },
  {
    name: "nginx that rewrites the path",
    fault: "request-changed",
    options: to("web", "--path-prefix", "/rewritten"),
  },
  {
    name: "nginx that does not pass Upgrade on",
    fault: "request-changed",
    options: to("web", "--path-prefix", "/no-upgrade"),
  },
  {
    name: "a web server that has a page there",
    fault: "upgrade-not-passed",
    options: to("web", "--path-prefix", "/page"),
  },
  {
    name: "nginx that takes the field Underpass out, before a server without a key",
    fault: "no-extension",
    options: ({ server, ports }) => [
      ...["--server", `${server}:${ports.web}`, ...QUICK],
      ...["--path-prefix", "/stripped"],
    ],
  },
  {
    name: "nginx that sends a request again",
    fault: "requests-repeated",
    options: to("web", "--path-prefix", "/repeated", "--test-timeout-ms", "6000"),
  },
  { name: "nginx without the path", fault: "path-unknown", options: to("web") },
  {
    name: "nginx before a server that is down",
    fault: "server-down",
    options: to("web", "--path-prefix", "/dead"),
  },
  { name: "nginx that redirects", fault: "redirected", options: to("web", "--path-prefix", "/moved") },
  { name: "nginx that forbids", fault: "web-forbidden", options: to("web", "--path-prefix", "/forbidden") },
  { name: "an SSH server", fault: "other-server", options: to("ssh") },
  { name: "a SOCKS5 proxy for a server", fault: "other-server", options: to("socks") },
  { name: "a server that is silent", fault: "no-answer", options: to("silent") },
  { name: "a server that closes", fault: "closed-unanswered", options: to("closing") },
  {
    name: "a server of another tunnel",
    fault: "other-dialect",
    options: (world) => [...to("udpgw")(world), "--test-dns", `127.0.0.1:${world.ports.dns}`],
  },
];
