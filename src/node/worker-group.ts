import { EventEmitter } from "node:events";
import { Worker } from "node:worker_threads";
import type { ErrorCode } from "../core/errors.ts";
import { HostError } from "../core/errors.ts";
import type { TunnelStats } from "./handles.ts";
import type { Logger } from "./log.ts";
import type { NativeModule } from "./native-module.ts";

/** First wait before a worker that crashed is started again; doubled up to the second while it goes on crashing. */
const FIRST_RESTART_MS = 100;
const MAX_RESTART_MS = 5_000;
/** One that has lived so long is well. */
const WELL_MS = 30_000;
const CLOSE_MS = 3_000;

/** What a thread is told at its start. */
export interface WorkerTask {
  readonly program: "udp-local" | "udp-server";
  /** Of the library; all of it can be cloned. */
  readonly options: object;
  readonly index: number;
  readonly count: number;
}

/** From a worker to its group. */
export type WorkerMessage =
  | { readonly kind: "ready"; readonly address: unknown }
  | { readonly kind: "failed"; readonly code: ErrorCode; readonly detail: string }
  | { readonly kind: "stats"; readonly stats: TunnelStats }
  | { readonly kind: "event"; readonly name: string; readonly fields: unknown }
  | {
      readonly kind: "log";
      readonly level: "debug" | "info" | "warn" | "error";
      readonly fields: object;
      readonly message: string;
    }
  | {
      readonly kind: "hand-over";
      readonly worker: number;
      readonly descriptor: number;
      readonly head: Uint8Array;
    }
  | { readonly kind: "closed" };

/** From a group to one of its workers. */
export type GroupMessage =
  | { readonly kind: "close" }
  | { readonly kind: "accept"; readonly descriptor: number; readonly head: Uint8Array };

export interface WorkerGroupOptions<Address> {
  readonly program: WorkerTask["program"];
  readonly count: number;
  readonly options: object;
  /** Options of the other workers, and of one that is started again: the addresses that the first one got. */
  readonly optionsAt: (address: Address) => object;
  readonly native: NativeModule;
  readonly log: Logger;
}

interface Member {
  thread: Worker | undefined;
  stats: TunnelStats | undefined;
  startedAt: number;
  crashes: number;
}

/**
 * Threads that run the same program on the same addresses, each with sessions of its own. One that crashes is started
 * again; its sessions register anew, as after a restart. Stats are sums of what the threads told last.
 */
export class WorkerGroup<Address> extends EventEmitter {
  readonly #options: WorkerGroupOptions<Address>;
  readonly #members: Member[] = [];
  #address: Address | undefined;
  #isClosing = false;
  /** What crashed threads had counted. */
  #past: TunnelStats | undefined;

  constructor(options: WorkerGroupOptions<Address>) {
    super();
    this.#options = options;
    for (let index = 0; index < options.count; index++) {
      this.#members.push({ thread: undefined, stats: undefined, startedAt: 0, crashes: 0 });
    }
  }

  get address(): Address {
    return this.#address!;
  }

  /** @throws HostError when the first worker cannot listen */
  async start(): Promise<void> {
    const { options, optionsAt, count } = this.#options;
    this.#address = (await this.#startMember(0, options)) as Address;
    const rest = optionsAt(this.#address);
    const others = Array.from({ length: count - 1 }, (_, i) => this.#startMember(i + 1, rest));
    try {
      await Promise.all(others);
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  stats(): TunnelStats {
    const all = this.#members.flatMap(({ stats }) => stats ?? []);
    return sumStats(this.#past === undefined ? all : [...all, this.#past]);
  }

  async close(): Promise<void> {
    if (this.#isClosing) return;
    this.#isClosing = true;
    await Promise.all(this.#members.map(({ thread }) => thread && ended(thread)));
  }

  #startMember(index: number, options: object): Promise<unknown> {
    const member = this.#members[index];
    const { program, count } = this.#options;
    const task: WorkerTask = { program, options, index, count };
    const thread = new Worker(new URL("./worker-thread.js", import.meta.url), { workerData: task });
    member.thread = thread;
    member.startedAt = performance.now();
    return new Promise((done, failed) => {
      thread.on("message", (message: WorkerMessage) => {
        if (message.kind === "ready") done(message.address);
        else if (message.kind === "failed") failed(new HostError(message.code, message.detail));
        else this.#handleMessage(member, message);
      });
      thread.on("error", (error: Error) => {
        this.#options.log.error({ worker: index, error: error.stack ?? error.message }, "a worker crashed");
      });
      thread.once("exit", () => {
        failed(new HostError("ERR_LISTEN", "the worker ended before it was ready"));
        if (member.thread === thread) this.#handleExit(index, member);
      });
    });
  }

  #handleMessage(member: Member, message: WorkerMessage): void {
    switch (message.kind) {
      case "stats":
        member.stats = message.stats;
        return;
      case "event":
        if (message.name !== "error" || this.listenerCount("error") > 0)
          this.emit(message.name, message.fields);
        return;
      case "log":
        this.#options.log[message.level](message.fields, message.message);
        return;
      case "hand-over": {
        const { descriptor, head } = message;
        const target = this.#members[message.worker]?.thread;
        if (target === undefined || this.#isClosing) this.#options.native.descriptorClose?.(descriptor);
        else target.postMessage({ kind: "accept", descriptor, head } satisfies GroupMessage);
        return;
      }
      default:
    }
  }

  #handleExit(index: number, member: Member): void {
    member.thread = undefined;
    if (this.#isClosing || this.#address === undefined) return;
    if (member.stats !== undefined) {
      const gone = { ...member.stats, sessions: 0, lanes: 0, associations: 0, contexts: 0, rttMs: undefined };
      this.#past = sumStats(this.#past === undefined ? [gone] : [this.#past, gone]);
      member.stats = undefined;
    }
    if (performance.now() - member.startedAt > WELL_MS) member.crashes = 0;
    const delay = Math.min(MAX_RESTART_MS, FIRST_RESTART_MS * 2 ** member.crashes++);
    this.#options.log.warn({ worker: index, delayMs: delay }, "starts a worker again");
    setTimeout(() => {
      if (this.#isClosing) return;
      const options = this.#options.optionsAt(this.address);
      this.#startMember(index, options).catch((error: Error) => {
        this.#options.log.error({ worker: index, error: error.message }, "a worker does not start");
        void member.thread?.terminate();
      });
    }, delay);
  }
}

/** Has a thread drain and end; ends it when it does not. */
function ended(thread: Worker): Promise<void> {
  return new Promise((done) => {
    const timer = setTimeout(() => void thread.terminate(), CLOSE_MS);
    thread.once("exit", () => {
      clearTimeout(timer);
      done();
    });
    thread.postMessage({ kind: "close" } satisfies GroupMessage);
  });
}

function sumStats(all: readonly TunnelStats[]): TunnelStats {
  const sum = (pick: (stats: TunnelStats) => number) => all.reduce((total, stats) => total + pick(stats), 0);
  const times = all.flatMap(({ rttMs }) => rttMs ?? []);
  return {
    sessions: sum((stats) => stats.sessions),
    lanes: sum((stats) => stats.lanes),
    associations: sum((stats) => stats.associations),
    contexts: sum((stats) => stats.contexts),
    datagramsIn: sum((stats) => stats.datagramsIn),
    datagramsOut: sum((stats) => stats.datagramsOut),
    bytesIn: sum((stats) => stats.bytesIn),
    bytesOut: sum((stats) => stats.bytesOut),
    resumed: sum((stats) => stats.resumed),
    rttMs: times.length === 0 ? undefined : times.reduce((total, time) => total + time, 0) / times.length,
    drops: sumRecords(all.map(({ drops }) => drops)),
    refused: sumRecords(all.map(({ refused }) => refused)),
  };
}

function sumRecords(records: readonly Readonly<Record<string, number>>[]): Record<string, number> {
  const total: Record<string, number> = {};
  for (const record of records) {
    for (const [name, count] of Object.entries(record)) total[name] = (total[name] ?? 0) + count;
  }
  return total;
}
