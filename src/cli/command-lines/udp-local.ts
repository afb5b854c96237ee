import { UDP_LOCAL_FIELDS } from "../../node/options/udp-local.ts";
import type { ProgramLine } from "../program-line.ts";

export const UDP_LOCAL_LINE = {
  name: "udp-local",
  description: "Takes UDP from applications (SOCKS5, fixed forwards) and sends it over TCP to udp-server.",
  examples: [
    "udp-local --server 192.0.2.1:3456 --psk-file psk",
    "udp-local --server 192.0.2.1:3456 --psk-file psk --key-name alice    at a server with --keys",
    "udp-local --forward 127.0.0.1:5353=9.9.9.9:53            DNS, to a server behind ss-tunnel on 127.0.0.1:3456",
    "udp-local --via socks5://127.0.0.1:1080 --psk-file psk   through ss-local",
    "udp-local --ss-config config.json --psk-file psk         through a shadowsocks server, without ss-local",
    "udp-local --config udp-local.json --log-format json",
  ],
  fields: UDP_LOCAL_FIELDS,
} satisfies ProgramLine;
