import { seededRandom } from "../unit/random.ts";
import { ACTIONS } from "./actions.ts";
import { bringToAgreement } from "./agreement.ts";
import { check, FuzzFailure } from "./failure.ts";
import { withinMs } from "./guard.ts";
import type { Settings } from "./settings.ts";
import { drawSettings } from "./settings.ts";
import { checkBounds, checkTables } from "./tables.ts";
import { World } from "./world/world.ts";

/** Numbers of one action: which it is, and what it applies to. */
export const ACTION_NUMBERS = 4;
/** Number of steps between two checks of all tables. */
const TABLE_STEPS = 8;

/** An episode: its settings, and its actions one after another, {@link ACTION_NUMBERS} numbers each. */
export interface Episode {
  readonly settings: Settings;
  readonly actions: Uint32Array;
}

export interface Failure {
  readonly kind: string;
  readonly message: string;
  /** Actions before the failure was noticed. */
  readonly step: number;
}

/** The `number`th episode of a seed. */
export function drawEpisode(seed: number, number: number): Episode {
  const random = seededRandom(Math.imul(seed, 0x9e37_79b1) ^ Math.imul(number + 1, 0x85eb_ca6b));
  const settings = drawSettings(random(), random, ACTIONS);
  const total = settings.weights.reduce((sum, weight) => sum + weight, 0);
  const choices = settings.weights.flatMap((weight, action) => Array<number>(weight).fill(action));
  const actions = new Uint32Array(settings.steps * ACTION_NUMBERS);
  for (let at = 0; at < actions.length; at += ACTION_NUMBERS) {
    actions[at] = choices[random() % total];
    for (let i = 1; i < ACTION_NUMBERS; i++) actions[at + i] = random();
  }
  return { settings, actions };
}

/** The position of the current run, by which a run that hangs is examined from outside. */
const progress = { step: 0 };

function run({ settings, actions }: Episode, isThorough: boolean, trace?: (line: string) => void): void {
  progress.step = 0;
  const world = new World(settings);
  world.trace = trace;
  for (let at = 0; at < actions.length; at += ACTION_NUMBERS) {
    const action = ACTIONS[actions[at]];
    trace?.(`-- step ${progress.step} at ${world.now} ms: ${action.name}`);
    action.run(world, actions[at + 1], actions[at + 2], actions[at + 3]);
    world.wake();
    checkBounds(world);
    if (isThorough || progress.step % TABLE_STEPS === 0) checkTables(world);
    progress.step++;
  }
  trace?.("-- the end");
  bringToAgreement(world);
  endAll(world);
}

/** Ends everything, and expects that nothing is left. */
function endAll(world: World): void {
  const { server, clients } = world;
  for (const host of clients) {
    for (const association of [...host.open]) world.closeAssociation(host, association);
  }
  world.exchange();
  for (const host of clients) {
    const { associationCount, contexts } = host.core;
    check(associationCount + contexts.size === 0, "a client keeps what has ended");
    const slots = host.flows.length;
    const association = world.openAssociation(host, false);
    check(association < Math.max(1, slots), "slots of associations are not used again, at a client");
  }
  for (const host of clients) world.closeClient(host);
  world.exchange();
  world.advance(world.settings.lingerMs + 22_000, true);
  const { associationCount, sessionCount, tunnelCount, contexts, halfOpenCount } = server;
  const left = associationCount + sessionCount + tunnelCount + contexts.size + halfOpenCount;
  if (left > 0) {
    const detail = `${sessionCount} sessions, ${tunnelCount} tunnels, ${associationCount} associations, ${contexts.size} contexts`;
    throw new FuzzFailure("the server keeps what has ended", detail);
  }
  if (world.foreign.length === 0 && server.nextTimeout() !== Number.POSITIVE_INFINITY) {
    throw new FuzzFailure("a server without tunnels wants to be woken");
  }
}

/**
 * Runs an episode.
 *
 * @param limitMs  a run that takes longer hangs
 * @returns what went wrong, or undefined
 */
export function runEpisode(
  episode: Episode,
  limitMs: number,
  isThorough: boolean,
  trace?: (line: string) => void,
): Failure | undefined {
  try {
    withinMs(limitMs, () => run(episode, isThorough, trace));
    return undefined;
  } catch (error) {
    const { step } = progress;
    if (error instanceof FuzzFailure) return { kind: error.kind, message: error.message, step };
    const { name, message, stack } = error as Error;
    return { kind: `${name}: ${message}`, message: stack ?? message, step };
  }
}

/**
 * Takes actions out of a failing episode as long as it fails in the same way ("delta debugging", Zeller 1999).
 *
 * @param untilMs  time on the caller's clock at which to stop with the result so far
 */
export function shrink(episode: Episode, kind: string, clock: () => number, untilMs: number): Episode {
  const limitMs = 1_000;
  let { actions } = episode;
  const fails = (candidate: Uint32Array) => {
    return runEpisode({ settings: episode.settings, actions: candidate }, limitMs, true)?.kind === kind;
  };
  const length = () => actions.length / ACTION_NUMBERS;
  for (let size = 2 ** Math.floor(Math.log2(Math.max(1, length()))); size >= 1; ) {
    let hasShrunk = false;
    for (let from = length() - size; from > -size && clock() < untilMs; from -= size) {
      const first = Math.max(0, from);
      const candidate = new Uint32Array(
        actions.length - (Math.min(length(), first + size) - first) * ACTION_NUMBERS,
      );
      candidate.set(actions.subarray(0, first * ACTION_NUMBERS));
      candidate.set(actions.subarray((first + size) * ACTION_NUMBERS), first * ACTION_NUMBERS);
      if (candidate.length === actions.length || !fails(candidate)) continue;
      actions = candidate;
      hasShrunk = true;
    }
    if (clock() >= untilMs) break;
    if (size > 1 || !hasShrunk) size = size === 1 ? 0 : Math.max(1, size >> 1);
  }
  return { settings: episode.settings, actions };
}
