import { parseTargetRule } from "../../core/target-rule.ts";
import type { Logger } from "../log.ts";
import type { TapOptions } from "../options/common.ts";
import type { System } from "../system.ts";
import { required } from "../system.ts";
import type { WorkerPlace } from "../workers.ts";
import { numbered } from "./ring-file.ts";
import { TapWriter } from "./tap-writer.ts";

/** Options of a tap with their defaults. */
type ResolvedTapOptions = Readonly<Required<Omit<TapOptions, "tap">>>;

/**
 * Opens the tap that options ask for.
 *
 * @param tap    path of the file
 * @param place  each further thread has its own file
 * @throws HostError ERR_FILE, or ERR_UNSUPPORTED
 */
export function openTap(
  options: ResolvedTapOptions,
  tap: string,
  program: string,
  system: System,
  log: Logger,
  place: WorkerPlace | undefined,
): TapWriter {
  const { tapFiles, tapFileBytes, tapPayloadBytes, tapFilter, tapInterfaces } = options;
  const open = required(system.openRingFile, "a tap");
  const path = place === undefined || place.index === 0 ? tap : numbered(tap, `thread${place.index}`);
  const startMs = system.unixMs() - system.now();
  return new TapWriter(
    {
      program,
      fileBytes: tapFileBytes,
      payloadBytes: tapPayloadBytes,
      filter: tapFilter.map((text) => parseTargetRule(text)!),
      isByAssociation: tapInterfaces === "association",
      unixMs: () => startMs + system.now(),
      after: (...timer) => system.after(...timer),
      onLoss: () => log.warn({ file: path }, "the tap is losing records: the disk is too slow or full"),
    },
    open(path, tapFiles),
  );
}
