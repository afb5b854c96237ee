import { parseArgs } from "node:util";
import { positiveInteger, positiveIntegers } from "../../scripts/fuzz/numbers.mjs";
import { FuzzFailure } from "../fuzz/failure.ts";
import { FoulServer } from "./foul-server.ts";
import { Siege } from "./siege.ts";
import { Socks5Siege } from "./socks5.ts";

const USAGE = `npm run fuzz:hostile -- [options]
  --steps N        events for each seed (20000)
  --seeds A,B,C    (1)
  --only NAME      server, client or socks5 (all)`;

interface Attack {
  step(): void | Promise<void>;
  end(): void | Promise<void>;
  readonly seen: Readonly<Record<string, number>>;
}

const ATTACKS: Readonly<Record<string, (seed: number) => Attack | Promise<Attack>>> = {
  server: (seed) => new Siege(seed),
  client: (seed) => new FoulServer(seed),
  socks5: (seed) => Socks5Siege.open(seed),
};

/** Runs what the command line asks for. @returns the exit status */
export async function main(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      steps: { type: "string", default: "20000" },
      seeds: { type: "string", default: "1" },
      only: { type: "string" },
      help: { type: "boolean", default: false },
    },
  });
  const names = values.only === undefined ? Object.keys(ATTACKS) : [values.only];
  if (values.help || names.some((name) => !Object.hasOwn(ATTACKS, name))) {
    console.log(USAGE);
    return values.help ? 0 : 2;
  }
  const steps = positiveInteger(values.steps);
  const seeds = positiveIntegers(values.seeds);
  if (steps === undefined || seeds === undefined) {
    console.error("fuzz:hostile: --steps and --seeds expect positive integers");
    return 2;
  }
  let status = 0;
  for (const name of names) {
    for (const seed of seeds) {
      if (!(await run(name, seed, steps))) status = 1;
    }
  }
  return status;
}

async function run(name: string, seed: number, steps: number): Promise<boolean> {
  const attack = await ATTACKS[name](seed);
  let step = 0;
  try {
    for (; step < steps; step++) await attack.step();
    await attack.end();
    console.log(`${name}, seed ${seed}: ${step} steps, ${JSON.stringify(attack.seen)}`);
    return true;
  } catch (error) {
    const text = error instanceof FuzzFailure ? error.message : (error as Error).stack;
    console.log(`FAILED ${name}, seed ${seed}, step ${step}: ${text}`);
    return false;
  }
}
