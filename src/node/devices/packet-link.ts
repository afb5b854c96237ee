import { spawn } from "node:child_process";
import type { OnPackets } from "../../core/tun2socks/packet-stream-reader.ts";
import type { PacketLink } from "../../host/devices/packet-link.ts";
import { RevivedLink } from "../../host/devices/packet-link.ts";
import type { Logger } from "../../host/log.ts";
import type { Loop } from "../../host/loop.ts";
import { readPackets, writePackets } from "./packet-stream.ts";

/**
 * Starts a program with a device on its standard input and output for the first packet, and restarts it when it ends.
 *
 * @param argv  program and arguments, without a shell
 */
export function spawnPackets(
  argv: readonly string[],
  loop: Loop,
  onPackets: OnPackets,
  log: Logger,
): PacketLink {
  return new RevivedLink(argv[0], loop, log, (onEnd) => {
    const child = spawn(argv[0], argv.slice(1), { stdio: ["pipe", "pipe", "inherit"] });
    let failure: Error | undefined;
    child.on("error", (error) => {
      failure = error;
    });
    child.stdin.on("error", () => {});
    // Anything but packets ends the stream, like a closed pipe.
    child.stdout.once("close", () => child.kill());
    child.once("close", (status, signal) => onEnd(failure?.message ?? `exit ${status ?? signal}`));
    readPackets(child.stdout, onPackets, log);
    return { write: (packets) => writePackets(child.stdin, packets), end: () => child.kill() };
  });
}
