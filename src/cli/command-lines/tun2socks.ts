import * as z from "zod";
import { TUN2SOCKS_FIELDS } from "../../node/options/tun2socks.ts";
import type { ProgramLine } from "../program-line.ts";

export const TUN2SOCKS_LINE = {
  name: "tun2socks",
  description:
    "Takes IP packets from a TUN device, and sends UDP through the tunnel to udp-server and TCP to a SOCKS5 server. It has all " +
    "options of udp-local.",
  examples: [
    "tun2socks --server 192.0.2.1:3456 --psk-file psk --tcp-via socks5://127.0.0.1:1080 --route 198.51.100.0/24",
    "tun2socks --udp-via socks5://127.0.0.1:1081 --tcp-via socks5://127.0.0.1:1080",
    'tun2socks --rule "udp *:443 reject" --rule "any 10.0.0.0/8 direct" --tcp-via socks5://127.0.0.1:1080',
    "tun2socks --device unix:/run/tun2socks.sock --udp-via socks5://127.0.0.1:1080    for udp-server --egress",
  ],
  fields: {
    ...TUN2SOCKS_FIELDS,
    dryRun: {
      schema: z.boolean().optional(),
      expects: "true or false",
      flag: "dry-run",
      help: "print what tun2socks would do, and exit",
    },
  },
} satisfies ProgramLine;
