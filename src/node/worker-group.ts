import type { Worker } from "node:worker_threads";
import type { ErrorCode } from "../core/errors.ts";
import { HostError } from "../core/errors.ts";
import type { NativeModule } from "../host/io/native-module.ts";
import type { Logger } from "../host/log.ts";
import type { KeyOption } from "../host/options/keys.ts";
import type { ResolvedUdpLocalOptions } from "../host/options/udp-local.ts";
import type { ResolvedUdpServerOptions } from "../host/options/udp-server.ts";
import type { KeptState } from "../host/restart/kept-state.ts";
import type { EndpointStatus, FlowStatus } from "../host/stats/status.ts";
import type { TunnelStats } from "../host/stats/tunnel-stats.ts";
import { statsOfGone, sumStats } from "../host/stats/tunnel-stats.ts";
import type { HandedOver, OtherWorkers, WorkerPlace } from "../host/workers.ts";

/** Delay before a crashed worker is restarted, doubled for each crash up to the second value. */
const FIRST_RESTART_MS = 100;
const MAX_RESTART_MS = 5_000;
/** A worker that ran this long counts as healthy: its crashes are forgotten. */
const HEALTHY_MS = 30_000;
const CLOSE_MS = 3_000;
/** Time limit for a thread's answer about its state. */
const STATUS_MS = 500;

/** What a thread gets when it starts. */
export interface WorkerTask extends WorkerPlace {
  readonly program: "udp-local" | "udp-server";
  /** Checked options of the library. */
  readonly options: ResolvedUdpLocalOptions | ResolvedUdpServerOptions;
}

/** The questions that a thread answers, with their answers. */
interface Answers {
  readonly status: EndpointStatus;
  readonly flows: FlowStatus;
}

/** Messages from a worker to its group. */
export type WorkerMessage =
  | { readonly kind: "ready" }
  | { readonly kind: "failed"; readonly code: ErrorCode; readonly detail: string }
  | { readonly kind: "stats"; readonly stats: TunnelStats }
  /** The answer to a question from the group. */
  | { readonly kind: "answer"; readonly query: number; readonly answer: Answers[keyof Answers] }
  | { readonly kind: "event"; readonly name: string; readonly fields: unknown }
  | {
      readonly kind: "log";
      readonly level: "debug" | "info" | "warn" | "error";
      readonly fields: object;
      readonly message: string;
    }
  /** The thread is about to take this descriptor, and will close it itself. */
  | { readonly kind: "taken-over"; readonly descriptor: number }
  /** The sessions and sockets of a thread that ends, which the group then owns. */
  | { readonly kind: "handed-on"; readonly states: readonly KeptState[] };

/** Messages from a group to one of its workers. */
export type GroupMessage =
  /** `keeps`: the thread hands on its sessions. */
  | { readonly kind: "close"; readonly keeps: boolean }
  /** Sent before any connection. */
  | { readonly kind: "restore"; readonly states: readonly KeptState[] }
  | { readonly kind: "question"; readonly query: number; readonly about: keyof Answers }
  | { readonly kind: "take-over"; readonly connection: HandedOver }
  | { readonly kind: "keys"; readonly keys: readonly KeyOption[] };

export interface WorkerGroupOptions {
  readonly program: WorkerTask["program"];
  /** Total number of workers; the caller's thread is the first. */
  readonly count: number;
  /** See {@link WorkerPlace}. Default 0. */
  readonly numbersUsed?: number;
  /** For the threads; everything in it can be cloned. */
  readonly options: WorkerTask["options"];
  readonly native: NativeModule;
  readonly log: Logger;
  readonly onEvent: (name: string, fields: unknown) => void;
}

interface Member {
  thread: Worker | undefined;
  /** Descriptors in transit to the thread, which must be closed here if it ends before it takes them. */
  readonly handedOver: Set<number>;
  /** See {@link WorkerPlace}. */
  numbersUsed: number;
  stats: TunnelStats | undefined;
  startedAt: number;
  crashes: number;
}

/**
 * Threads besides the caller's that run the same program, each with its own sessions. A crashed thread is restarted; its
 * sessions begin again, as after a restart of the program.
 */
export class WorkerGroup implements OtherWorkers {
  readonly #options: WorkerGroupOptions;
  /** The first, for the caller's thread, stays empty. */
  readonly #members: Member[] = [];
  #isClosing = false;
  /** Questions that threads have not answered yet, by number. */
  readonly #queries = new Map<number, (answer: Answers[keyof Answers] | undefined) => void>();
  #nextQuery = 0;
  /** The current keys, which may have replaced those that threads started with. */
  #keys: readonly KeyOption[] | undefined;
  /** Counters of crashed threads. */
  #past: TunnelStats | undefined;
  readonly #handedOn: KeptState[] = [];

  constructor(options: WorkerGroupOptions) {
    this.#options = options;
    for (let index = 0; index < options.count; index++) {
      this.#members.push({
        ...{ thread: undefined, handedOver: new Set(), stats: undefined },
        numbersUsed: options.numbersUsed ?? 0,
        ...{ startedAt: 0, crashes: 0 },
      });
    }
  }

  /** Starts all threads. @throws HostError when one cannot listen */
  async start(): Promise<void> {
    const starts = this.#members.flatMap((_, index) => (index === 0 ? [] : this.#startMember(index, true)));
    await Promise.all(starts);
  }

  /** The latest counters of the threads, and those of crashed ones. */
  stats(): TunnelStats[] {
    return [
      ...this.#members.flatMap(({ stats }) => stats ?? []),
      ...(this.#past === undefined ? [] : [this.#past]),
    ];
  }

  status(): Promise<EndpointStatus[]> {
    return this.#askAll("status");
  }

  flows(): Promise<FlowStatus[]> {
    return this.#askAll("flows");
  }

  async #askAll<About extends keyof Answers>(about: About): Promise<Answers[About][]> {
    const threads = this.#members.flatMap(({ thread }) => thread ?? []);
    const answers = await Promise.all(threads.map((thread) => this.#ask(thread, about)));
    return answers.flatMap((answer) => answer ?? []) as Answers[About][];
  }

  /** @returns undefined if the thread does not answer in time */
  #ask(thread: Worker, about: keyof Answers): Promise<Answers[keyof Answers] | undefined> {
    const query = this.#nextQuery++;
    return new Promise((done) => {
      const end = (answer: Answers[keyof Answers] | undefined) => {
        clearTimeout(timer);
        this.#queries.delete(query);
        done(answer);
      };
      const timer = setTimeout(() => end(undefined), STATUS_MS);
      this.#queries.set(query, end);
      thread.postMessage({ kind: "question", query, about } satisfies GroupMessage);
    });
  }

  /** Hands a connection over to another worker, and starts its thread if necessary. */
  handOver(worker: number, connection: HandedOver): void {
    const member = this.#members[worker];
    if (this.#isClosing) {
      this.#options.native.descriptorClose?.(connection.descriptor);
      return;
    }
    // A thread queues messages that arrive before it is ready.
    if (member.thread === undefined) void this.#startMember(worker, false);
    member.handedOver.add(connection.descriptor);
    // It may begin a session, whose name the next thread must not give again if this one crashes.
    member.numbersUsed += this.#options.count;
    member.thread!.postMessage({ kind: "take-over", connection } satisfies GroupMessage);
  }

  /** Has a worker continue sessions of another process, and starts its thread. Called before any connection. */
  restore(worker: number, states: readonly KeptState[]): void {
    void this.#startMember(worker, false);
    this.#members[worker].thread!.postMessage({ kind: "restore", states } satisfies GroupMessage);
  }

  replaceKeys(keys: readonly KeyOption[]): void {
    this.#keys = keys;
    for (const { thread } of this.#members) {
      thread?.postMessage({ kind: "keys", keys } satisfies GroupMessage);
    }
  }

  async close(): Promise<void> {
    this.#isClosing = true;
    const { options } = this.#options;
    const drainMs = "drainS" in options ? (options.drainS ?? 0) * 1000 : 0;
    await this.#endAll(drainMs + CLOSE_MS, false);
  }

  async handOn(): Promise<readonly KeptState[]> {
    this.#isClosing = true;
    await this.#endAll(CLOSE_MS, true);
    return this.#handedOn;
  }

  async #endAll(ms: number, keeps: boolean): Promise<void> {
    await Promise.all(this.#members.map(({ thread }) => thread && ended(thread, ms, keeps)));
  }

  /** @param isEager  true if it is restarted after a crash, and its failure to start is reported to the caller */
  #startMember(index: number, isEager: boolean): Promise<void> {
    const member = this.#members[index];
    const { program, count, log } = this.#options;
    const options = { ...this.#options.options, ...(this.#keys === undefined ? {} : { keys: this.#keys }) };
    const task: WorkerTask = { program, options, index, count, numbersUsed: member.numbersUsed };
    const { Worker } = process.getBuiltinModule("node:worker_threads");
    const thread = new Worker(new URL("./worker-thread.js", import.meta.url), { workerData: task });
    member.thread = thread;
    member.startedAt = performance.now();
    return new Promise((done, failed) => {
      thread.on("message", (message: WorkerMessage) => {
        if (message.kind === "ready") done();
        else if (message.kind === "failed" && isEager) failed(new HostError(message.code, message.detail));
        else this.#handleMessage(index, message);
      });
      thread.on("error", (error: Error) => {
        log.error({ worker: index, error: error.stack ?? error.message }, "a worker crashed");
      });
      thread.once("exit", () => {
        done();
        if (member.thread === thread) this.#handleExit(index, member, isEager);
      });
    });
  }

  #handleMessage(index: number, message: WorkerMessage): void {
    switch (message.kind) {
      case "stats":
        this.#members[index].stats = message.stats;
        return;
      case "answer":
        this.#queries.get(message.query)?.(message.answer);
        return;
      case "taken-over":
        this.#members[index].handedOver.delete(message.descriptor);
        return;
      case "handed-on":
        this.#handedOn.push(...message.states);
        return;
      case "event":
        this.#options.onEvent(message.name, message.fields);
        return;
      case "log":
        this.#options.log[message.level](message.fields, message.message);
        return;
      case "failed":
        this.#options.log.error({ worker: index, error: message.detail }, "a worker failed to start");
        return;
      default:
    }
  }

  #handleExit(index: number, member: Member, isEager: boolean): void {
    member.thread = undefined;
    for (const descriptor of member.handedOver) this.#options.native.descriptorClose?.(descriptor);
    member.handedOver.clear();
    if (this.#isClosing) return;
    if (member.stats !== undefined) {
      const gone = statsOfGone(member.stats);
      this.#past = sumStats(this.#past === undefined ? [gone] : [this.#past, gone]);
      member.stats = undefined;
    }
    if (!isEager) return;
    if (performance.now() - member.startedAt > HEALTHY_MS) member.crashes = 0;
    const delay = Math.min(MAX_RESTART_MS, FIRST_RESTART_MS * 2 ** member.crashes++);
    this.#options.log.warn({ worker: index, delayMs: delay }, "restarting a worker");
    setTimeout(() => {
      if (!this.#isClosing) this.#startMember(index, true).catch(() => {});
    }, delay);
  }
}

/** Lets a thread drain and end; terminates it if it has not ended within `ms`. */
function ended(thread: Worker, ms: number, keeps: boolean): Promise<void> {
  return new Promise((done) => {
    const timer = setTimeout(() => void thread.terminate(), ms);
    thread.once("exit", () => {
      clearTimeout(timer);
      done();
    });
    thread.postMessage({ kind: "close", keeps } satisfies GroupMessage);
  });
}
