import { describePlan } from "../host/options/tun2socks.ts";
import type { Tun2SocksHandle } from "../node/handles.ts";
import type { Tun2SocksOptions } from "../node/options/tun2socks.ts";
import { resolveTun2SocksOptions } from "../node/options/tun2socks.ts";
import { startTun2Socks } from "../node/tun2socks.ts";
import { TUN2SOCKS_LINE } from "./command-lines/tun2socks.ts";
import { runProgram } from "./program.ts";

void runProgram({
  ...TUN2SOCKS_LINE,
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
  diagnose: async ({ dryRun, ...options }, ...walk) =>
    (await import("../node/doctor/tun2socks.ts")).diagnoseTun2Socks(options, ...walk),
  hasSession: ({ sessions }, { udpVia, masque, dialect }) =>
    sessions > 0 || udpVia !== undefined || masque !== undefined || dialect !== undefined,
  readyFields: ({ address }: Tun2SocksHandle) => ({ device: address.device }),
  readyText: ({ address }) => address.plan.join(", "),
});
