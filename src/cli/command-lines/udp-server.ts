import { UDP_SERVER_FIELDS } from "../../node/options/udp-server.ts";
import type { ProgramLine } from "../program-line.ts";

export const UDP_SERVER_LINE = {
  name: "udp-server",
  description:
    'Accepts tunnels from udp-local over TCP and sends their UDP to its targets. "udp-server keygen [NAME]" prints a new key.',
  examples: [
    "udp-server --psk-file psk --listen 0.0.0.0:3456",
    "udp-server                                        behind ss-server on the same host, on 127.0.0.1:3456",
    "udp-server --listen unix:/run/udp-server.sock --allow 10.0.0.0/8:53",
    "udp-server --psk-file psk --ss-config config.json --ss-relay direct    as the shadowsocks server",
    "udp-server --keys keys.json --listen 0.0.0.0:3456       a key for each client; kill -HUP reloads them",
    "udp-server --config udp-server.json --log-format json",
  ],
  fields: UDP_SERVER_FIELDS,
} satisfies ProgramLine;
