#!/usr/bin/env node
import * as z from "zod";
import { describePlan } from "../host/options/tun2socks.ts";
import type { Tun2SocksHandle } from "../node/handles.ts";
import type { Tun2SocksOptions } from "../node/options/tun2socks.ts";
import { resolveTun2SocksOptions, TUN2SOCKS_FIELDS } from "../node/options/tun2socks.ts";
import { startTun2Socks } from "../node/tun2socks.ts";
import { runProgram } from "./program.ts";

await runProgram({
  name: "tun2socks",
  description:
    "Takes IP packets from a TUN device: UDP goes into the tunnel to udp-server, TCP to a SOCKS5 server. With all " +
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
      help: "print what would be done, and exit",
    },
  },
  check: ({ dryRun, ...options }: Tun2SocksOptions & { dryRun?: boolean }, nameField) => {
    const resolved = resolveTun2SocksOptions(options, nameField);
    if (dryRun !== true) return;
    process.stdout.write(`${describePlan(resolved).join("\n")}\n`);
    process.exit(0);
  },
  start: async ({ dryRun, ...options }, log) => {
    const running = await startTun2Socks(options, log);
    running.once("end", (error?: Error) => {
      void running.close().then(() => process.exit(error === undefined ? 0 : 1));
    });
    return running;
  },
  isReady: ({ sessions }, { udpVia, masque, dialect }) =>
    sessions > 0 || udpVia !== undefined || masque !== undefined || dialect !== undefined,
  readyFields: ({ address }: Tun2SocksHandle) => ({ device: address.device }),
  readyText: ({ address }) => address.plan.join(", "),
});
