#!/usr/bin/env node
import { availableParallelism } from "node:os";
import type { UdpServer } from "../node/handles.ts";
import { resolveUdpServerOptions } from "../node/options/udp-server.ts";
import { findSingleThreadReason, startUdpServer } from "../node/udp-server.ts";
import { UDP_SERVER_LINE } from "./command-lines/udp-server.ts";
import { runProgram } from "./program.ts";

await runProgram({
  ...UDP_SERVER_LINE,
  check: resolveUdpServerOptions,
  start: (options, log) => {
    const isSingle = findSingleThreadReason(resolveUdpServerOptions(options)) !== undefined;
    return startUdpServer({ workers: isSingle ? 1 : availableParallelism(), ...options }, log);
  },
  isReady: () => true,
  readyFields: ({ address }: UdpServer) => ({ listen: address.listen }),
  readyText: ({ address }) => `listen ${address.listen.join(", ")}`,
});
