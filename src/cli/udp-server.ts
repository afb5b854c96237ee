import { availableParallelism } from "node:os";
import type { UdpServerOptions } from "../host/options/udp-server.ts";
import type { UdpServer } from "../node/handles.ts";
import { hasNativeIo } from "../node/io/io.ts";
import { resolveUdpServerOptions } from "../node/options/udp-server.ts";
import { findSingleThreadReason, startUdpServer } from "../node/udp-server.ts";
import { UDP_SERVER_LINE } from "./command-lines/udp-server.ts";
import { withInheritedListeners } from "./inherited-listeners.ts";
import { runKeygen } from "./keygen.ts";
import { readKeysFile } from "./keys-file.ts";
import { runProgram } from "./program.ts";

void runProgram({
  ...UDP_SERVER_LINE,
  check: (options: UdpServerOptions, nameField) =>
    resolveUdpServerOptions(withInheritedListeners(options, nameField), nameField),
  start: (given, log) => {
    const options = withInheritedListeners(given);
    const reason = findSingleThreadReason(resolveUdpServerOptions(options));
    const isSingle = reason !== undefined || !hasNativeIo(options.io);
    return startUdpServer({ workers: isSingle ? 1 : availableParallelism(), ...options }, log);
  },
  runCommand: { keygen: runKeygen },
  reload: (server: UdpServer, secretFiles) => {
    const path = secretFiles.get("keys");
    if (path === undefined) return undefined;
    const keys = readKeysFile(path);
    server.replaceKeys(keys);
    return { file: path, keys: keys.length };
  },
  hasSession: () => true,
  readyFields: ({ address }: UdpServer) => ({ listen: address.listen }),
  readyText: ({ address }) => `listen ${address.listen.join(", ")}`,
});
