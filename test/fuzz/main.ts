import { performance } from "node:perf_hooks";
import { parseArgs } from "node:util";
import { positiveInteger, positiveIntegers } from "../../scripts/fuzz/numbers.mjs";
import { ACTIONS } from "./actions.ts";
import type { Episode, Failure } from "./episode.ts";
import { ACTION_NUMBERS, drawEpisode, runEpisode, shrink } from "./episode.ts";

const USAGE = `npm run fuzz -- [options]
  --steps N        actions for each seed (100000)
  --seeds A,B,C    (1)
  --episode N      only this episode of each seed
  --actions TEXT   instead of the episode's own actions, with its settings: as a failure prints them
  --trace          prints what happens
  --no-shrink      leaves a failing episode as it is
  --honest         leaves out episodes in which an end hears what the other did not say
  --roomy          leaves out episodes whose bounds are small enough to be reached
  --keep-going     goes on after a failure, with the next episode; at the end, how often what was seen`;

const LIMIT_MS = 20_000;
const SHRINK_MS = 60_000;

export interface FuzzOptions {
  readonly seeds: readonly number[];
  /** Minimum for each seed. */
  readonly steps: number;
  readonly episode?: number | undefined;
  readonly actions?: Uint32Array | undefined;
  readonly isTraced?: boolean;
  readonly shrinks?: boolean;
  readonly isHonest?: boolean;
  readonly isRoomy?: boolean;
  readonly keepsGoing?: boolean;
}

/** Runs what the command line asks for. @returns the exit status */
export function main(args: readonly string[]): number {
  const { values } = parseArgs({
    args: [...args],
    options: {
      steps: { type: "string", default: "100000" },
      seeds: { type: "string", default: "1" },
      episode: { type: "string" },
      actions: { type: "string" },
      trace: { type: "boolean", default: false },
      "no-shrink": { type: "boolean", default: false },
      honest: { type: "boolean", default: false },
      roomy: { type: "boolean", default: false },
      "keep-going": { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(USAGE);
    return 0;
  }
  const steps = positiveInteger(values.steps);
  const seeds = positiveIntegers(values.seeds);
  if (steps === undefined || seeds === undefined) {
    console.error("fuzz: --steps and --seeds expect positive integers");
    return 2;
  }
  const episode = values.episode === undefined ? undefined : Number(values.episode);
  if (episode !== undefined && !(Number.isSafeInteger(episode) && episode >= 0)) {
    console.error("fuzz: --episode expects the number of an episode");
    return 2;
  }
  const options: FuzzOptions = {
    seeds,
    steps,
    episode,
    actions: values.actions === undefined ? undefined : parseActions(values.actions),
    isTraced: values.trace,
    shrinks: !values["no-shrink"],
    isHonest: values.honest,
    isRoomy: values.roomy,
    keepsGoing: values["keep-going"],
  };
  return fuzz(options, (line) => console.log(line)) ? 0 : 1;
}

/** Runs episode after episode of each seed. @returns whether everything passed; `print` gets the failures */
export function fuzz(options: FuzzOptions, print: (line: string) => void): boolean {
  const { seeds, steps, episode: only, isTraced = false, shrinks = true } = options;
  const kinds = new Map<string, number>();
  for (const seed of seeds) {
    const begin = performance.now();
    let taken = 0;
    for (let number = only ?? 0; taken < steps; number++) {
      let episode = drawEpisode(seed, number);
      const { hasLies, isTight } = episode.settings;
      if ((options.isHonest && hasLies) || (options.isRoomy && isTight)) continue;
      if (options.actions !== undefined) episode = { ...episode, actions: options.actions };
      const failure = runEpisode(episode, LIMIT_MS, isTraced, isTraced ? print : undefined);
      taken += episode.actions.length / ACTION_NUMBERS;
      if (failure !== undefined) {
        const kind = `${failure.kind} (${hasLies ? "lies" : "honest"}, ${isTight ? "tight" : "roomy"})`;
        kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
        if (kinds.get(kind) === 1) report(seed, number, episode, failure, shrinks && !isTraced, print);
        if (!options.keepsGoing) return false;
      }
      if (only !== undefined) break;
    }
    const seconds = (performance.now() - begin) / 1000;
    print(`seed ${seed}: ${taken} steps in ${seconds.toFixed(1)} s`);
  }
  for (const [kind, count] of kinds) print(`${count} times: ${kind}`);
  return kinds.size === 0;
}

function report(
  seed: number,
  number: number,
  episode: Episode,
  failure: Failure,
  shrinks: boolean,
  print: (line: string) => void,
): void {
  print(`FAILED seed ${seed} episode ${number} step ${failure.step}: ${failure.message}`);
  if (!shrinks) return;
  const clock = () => performance.now();
  const { actions } = shrink(episode, failure.kind, clock, clock() + SHRINK_MS);
  print(`shrunk from ${episode.settings.steps} to ${actions.length / ACTION_NUMBERS} actions:`);
  for (let at = 0; at < actions.length; at += ACTION_NUMBERS) {
    print(`  ${ACTIONS[actions[at]].name} ${[...actions.subarray(at + 1, at + ACTION_NUMBERS)].join(" ")}`);
  }
  print(`npm run fuzz -- --seeds ${seed} --episode ${number} --trace --actions ${formatActions(actions)}`);
}

function formatActions(actions: Uint32Array): string {
  return actions.length === 0 ? "none" : [...actions].map((number) => number.toString(36)).join(".");
}

function parseActions(text: string): Uint32Array {
  if (text === "none") return new Uint32Array(0);
  return Uint32Array.from(text.split("."), (number) => Number.parseInt(number, 36));
}
