import type { Filtering } from "../../src/core/server/server-associations.ts";

/** What stays the same during one episode. Durations in milliseconds, sizes in bytes. */
export interface Settings {
  /** Random number from which everything else in the episode may be derived. */
  readonly seed: number;
  readonly steps: number;
  /** Frequency of each action, by its number, relative to the others. */
  readonly weights: readonly number[];
  /** Whether an end may receive bytes that the other did not send, as from a faulty peer. */
  readonly hasLies: boolean;
  /** Whether bounds are small enough to be reached. */
  readonly isTight: boolean;
  readonly clients: number;
  readonly lanes: number | "auto";
  /** Whether the server's address is on the clients' machine. */
  readonly isLocal: boolean;
  /** Whether the server agrees to receipts, which clients with several lanes offer. */
  readonly hasReceipts: boolean;
  readonly filtering: Filtering;
  readonly hasKey: boolean;
  /** How far the clients' clocks are ahead of the server's; each may start anywhere. */
  readonly clockOffsetMs: number;
  readonly ageBudgetMs: number;
  readonly queueBytes: number;
  /** Bytes that a connection accepts before the sender has to wait. */
  readonly pipeBytes: number;
  readonly maxAssociations: number;
  readonly maxContexts: number;
  /** Largest id of an association or context, at both ends. */
  readonly maxId: number | undefined;
  readonly clientIdleMs: number;
  readonly clientActiveIdleMs: number;
  readonly serverIdleMs: number;
  readonly lingerMs: number;
  readonly maxHalfOpen: number;
  readonly maxSessions: number;
  readonly maxLingering: number;
  readonly maxServerAssociations: number;
  readonly maxAssociationsPerSession: number;
  readonly maxContextsPerSession: number;
  /** Whether associations of SOCKS5 clients, which do not expire, are among the others. */
  readonly hasLasting: boolean;
  readonly addresses: number;
  readonly names: number;
  readonly denied: number;
  readonly strangers: number;
}

/** One client with one lane, and limits that are not reached. */
export const ROOMY: Settings = {
  seed: 1,
  steps: 0,
  weights: [],
  hasLies: false,
  isTight: false,
  clients: 1,
  lanes: 1,
  isLocal: false,
  hasReceipts: true,
  filtering: "endpoint-independent",
  hasKey: false,
  clockOffsetMs: 0,
  ageBudgetMs: 100,
  queueBytes: 1_048_576,
  pipeBytes: 65_536,
  maxAssociations: 64,
  maxContexts: 4_096,
  maxId: undefined,
  clientIdleMs: 60_000,
  clientActiveIdleMs: 300_000,
  serverIdleMs: 600_000,
  lingerMs: 60_000,
  maxHalfOpen: 16,
  maxSessions: 4,
  maxLingering: 4,
  maxServerAssociations: 128,
  maxAssociationsPerSession: 64,
  maxContextsPerSession: 4_096,
  hasLasting: true,
  addresses: 3,
  names: 1,
  denied: 0,
  strangers: 8,
};

const FILTERINGS: readonly Filtering[] = [
  "endpoint-independent",
  "address-dependent",
  "address-and-port-dependent",
];

/** The usual frequency of an action relative to the others, and its theme. */
export interface UsualWeight {
  readonly weight: number;
  readonly theme: string;
}

/**
 * Settings of one episode. Each episode omits some actions and uses those of one theme often, so together they reach states that an even
 * mixture would not ("swarm testing", Groce et al. 2012).
 */
export function drawSettings(seed: number, random: () => number, usual: readonly UsualWeight[]): Settings {
  const pick = <T>(...values: readonly T[]): T => values[random() % values.length];
  const clients = pick(1, 1, 2, 3);
  const isTight = pick(true, false);
  const { theme: main } = pick(...usual);
  const maxAssociations = pick(1, 2, 4, 8, 16);
  const maxContexts = isTight ? pick(4, 8, 16, 64) : 4_096;
  const most = Math.max(maxContexts, maxAssociations);
  // A server has room for everything that its clients may request, including what it does not yet know to have ended.
  const maxAssociationsPerSession = pick(2, 4) * maxAssociations;
  return {
    seed,
    steps: pick(200, 500, 1_000, 2_000, 5_000),
    weights: usual.map(({ weight, theme }) => weight * pick(0, 1, 1, 1, 3) * (theme === main ? 8 : 1)),
    hasLies: pick(true, false),
    isTight,
    clients,
    lanes: pick<number | "auto">(1, 2, 2, 3, 4, "auto", "auto"),
    isLocal: pick(true, false),
    hasReceipts: pick(true, true, false),
    filtering: pick(...FILTERINGS),
    hasKey: pick(true, false),
    clockOffsetMs: pick(0, -900, 3_600_000.5),
    ageBudgetMs: pick(100, 1_000, 10_000),
    queueBytes: pick(2_048, 16_384, 1_048_576),
    pipeBytes: pick(1, 64, 4_096, 65_536),
    maxAssociations,
    maxContexts,
    maxId: isTight ? pick(undefined, 4 * most + 8, 4 * most + 8, 16 * most) : undefined,
    clientIdleMs: pick(5_000, 60_000),
    clientActiveIdleMs: pick(10_000, 300_000),
    serverIdleMs: pick(20_000, 600_000, 1_200_000),
    lingerMs: pick(1_000, 10_000, 60_000, 600_000),
    maxHalfOpen: pick(4, 16),
    maxSessions: 2 * clients + pick(1, 4),
    maxLingering: pick(1, 2, 16),
    maxServerAssociations: (clients + 1) * maxAssociationsPerSession,
    maxAssociationsPerSession,
    maxContextsPerSession: maxContexts * pick(1, 2, 4),
    hasLasting: pick(true, false),
    addresses: pick(1, 3, 6, 12),
    names: pick(0, 1, 3),
    denied: pick(0, 0, 1),
    strangers: pick(1, 8, 200),
  };
}
