import type { EventEmitter } from "node:events";
import { readFileSync } from "node:fs";
import { constants } from "node:os";
import { performance } from "node:perf_hooks";
import { destination, pino } from "pino";
import type prettyStream from "pino-pretty";
import { UsageError } from "../core/errors.ts";
import type { Step } from "../host/doctor/checks/check.ts";
import type { Redaction } from "../host/doctor/redaction.ts";
import type { DoctorSettings } from "../host/doctor/settings.ts";
import type { Logger } from "../host/log.ts";
import type { NameField } from "../host/options/fields/fields.ts";
import { checkFields } from "../host/options/fields/fields.ts";
import { statsLine, summarize } from "../host/stats/stats-line.ts";
import type { EndpointStatus, FlowStatus } from "../host/stats/status.ts";
import type { TunnelStats } from "../host/stats/tunnel-stats.ts";
import type { AdminServer } from "../node/admin/admin-server.ts";
import { onEvents } from "../node/handles.ts";
import type { AdminOptions } from "./admin/admin-options.ts";
import { ADMIN_COMMANDS, checkAdmin } from "./admin/admin-options.ts";
import { CLOSING_SIGNALS, dropEarlyHandlers, noteEarlyHandlers } from "./early-signals.ts";
import type { GatheredOptions } from "./option-sources.ts";
import { gatherOptions } from "./option-sources.ts";
import type { LogLevel } from "./program-fields.ts";
import { HOST_FIELDS } from "./program-fields.ts";
import type { ProgramLine } from "./program-line.ts";
import { notifySystemd, Readiness, writeReadyFd } from "./readiness.ts";
import { isExposed } from "./secret-file.ts";

const EXIT_FAILURE = 1;
const EXIT_USAGE = 2;
/** Time without a session, after a failure, before the log names the doctor. */
const ADVICE_MS = 3_000;
/** Limit of log bytes that wait to be written. */
const MAX_LOG_BYTES = 1_048_576;

interface Handle extends EventEmitter {
  stats(): TunnelStats;
  status(): Promise<EndpointStatus>;
  flows(): Promise<FlowStatus>;
  close(): Promise<void>;
}

/** The differences between the programs. */
export interface Program<Options extends object, Running extends Handle> extends ProgramLine {
  /** @throws UsageError that names the field with `nameField` */
  readonly check: (options: Options, nameField: NameField) => unknown;
  readonly start: (options: Options, log: Logger) => Promise<Running>;
  /**
   * What SIGHUP does in a program that can reload something.
   *
   * @param secretFiles  by option
   * @returns what was reloaded, for the log; undefined for nothing
   * @throws UsageError, HostError; the previous settings then stay in effect
   */
  readonly reload?: (running: Running, secretFiles: ReadonlyMap<string, string>) => object | undefined;
  /** Members of the ready line in JSON. */
  readonly readyFields: (running: Running) => object;
  readonly readyText: (running: Running) => string;
  /** For a program that has a doctor. */
  readonly diagnose?: (
    options: Options,
    settings: DoctorSettings,
    onBegin: (way: string, redaction: Redaction) => void,
    onStep: (step: Step) => void,
  ) => Promise<void>;
  /** Runs the program's own commands, with the arguments after them. */
  readonly runCommand?: Readonly<Record<string, (argv: readonly string[]) => void>>;
  /** Whether the program has a session, or needs none for its work. */
  readonly hasSession: (stats: TunnelStats, options: Options) => boolean;
}

/** Options of the programs that the library lacks. */
interface HostOptions extends AdminOptions {
  readonly logLevel: LogLevel;
  readonly logFormat: "pretty" | "json";
  readonly readyFd?: number;
  readonly statsIntervalS?: number;
}

/** Runs a program from its command line to its exit: with 0 after a signal, 1 on failure, 2 for bad options. */
export async function runProgram<Options extends object, Running extends Handle>(
  program: Program<Options, Running>,
): Promise<void> {
  noteEarlyHandlers();
  // The tunnel survives if the reader of the log goes away.
  process.stderr.on("error", () => {});
  let isStarting = false;
  // The reader of --help or "top" may exit early.
  process.stdout.on("error", () => {
    if (!isRunning) process.exit(0);
  });
  let isRunning = false;
  try {
    const [command, ...rest] = process.argv.slice(2);
    const known = ADMIN_COMMANDS.find((name) => name === command);
    if (known !== undefined) {
      isStarting = true;
      dropEarlyHandlers();
      // Loaded only if it is used.
      const { runAdminCommand } = await import("./admin/admin-client.ts");
      await runAdminCommand({ name: program.name, version: packageVersion() }, known, rest);
      return;
    }
    const { diagnose } = program;
    if (command === "doctor" && diagnose !== undefined) {
      isStarting = true;
      dropEarlyHandlers();
      // Loaded only if it is used.
      const { runDoctor } = await import("./doctor.ts");
      process.exit(await runDoctor({ ...program, diagnose, version: packageVersion() }, rest));
    }
    if (command !== undefined && Object.hasOwn(program.runCommand ?? {}, command)) {
      program.runCommand![command](rest);
      return;
    }
    const gathered = gatherOptions(
      {
        name: program.name,
        description: `${program.description} "${program.name} status" and "${program.name} top" show the state of a running program through its --admin.`,
        examples: program.examples,
        version: packageVersion(),
        fields: { ...program.fields, ...HOST_FIELDS },
      },
      process.argv.slice(2),
    );
    isStarting = true;
    isRunning = gathered !== undefined;
    if (gathered !== undefined) await run(program, gathered);
  } catch (error) {
    const reason = (error as Error).message.replace(/\s*\n\s*/g, " ");
    process.stderr.write(`${program.name}: ${reason}\n`);
    // Any failure before the start is a bad option, such as a file that cannot be read.
    process.exit(error instanceof UsageError || !isStarting ? EXIT_USAGE : EXIT_FAILURE);
  }
}

async function run<Options extends object, Running extends Handle>(
  program: Program<Options, Running>,
  { values, nameField, secretFiles }: GatheredOptions,
): Promise<void> {
  const isOfHost = ([name]: [string, unknown]) => name in HOST_FIELDS;
  const entries = Object.entries(values);
  const host = checkFields(
    HOST_FIELDS,
    Object.fromEntries(entries.filter(isOfHost)),
    nameField,
  ) as HostOptions;
  const options = Object.fromEntries(entries.filter((entry) => !isOfHost(entry))) as Options;
  program.check(options, nameField);
  checkAdmin(host, nameField);
  // Before anything is awaited, because from now on there may be something to close.
  const signals = new ClosingSignals();

  // Loaded only if it is used.
  const pretty = host.logFormat === "json" ? undefined : (await import("pino-pretty")).default;
  const log = openLog(host, pretty);
  // Closing a terminal also sends this signal, which is no reason to exit.
  let reload = (): void => log.info({}, "ignoring SIGHUP during startup");
  process.on("SIGHUP", () => reload());
  warnOfExposed(secretFiles, log);
  const running = await program.start(options, log);
  reload = () => reloadOnSignal(program, running, secretFiles, log);
  const readiness = new Readiness(running, () => program.hasSession(running.stats(), options));
  if (program.diagnose !== undefined) adviseDoctor(program.name, running, readiness, log);
  const admin = await openAdmin(program, running, readiness, host, log).catch(async (error: Error) => {
    await running.close();
    throw error;
  });
  const stopStats = reportStats(running, host, log);
  const close = async () => {
    readiness.handleClosing();
    stopStats();
    // Until the program has closed, the admin server reports that it is not ready.
    await running.close();
    await admin?.close();
  };
  if (signals.handleStarted(close, log)) return;

  const ready = { ready: program.name, ...program.readyFields(running), admin: admin?.address };
  const readyLine = `${JSON.stringify(ready)}\n`;
  const readyText = [
    program.readyText(running),
    ...(admin === undefined ? [] : [`admin ${admin.address}`]),
  ].join(", ");
  const text = host.logFormat === "json" ? readyLine : `${program.name} ready: ${readyText}\n`;
  process.stderr.write(text);
  if (host.readyFd !== undefined) writeReadyFd(host.readyFd, readyLine);
  notifySystemd("READY=1", log);
}

function warnOfExposed(secretFiles: ReadonlyMap<string, string>, log: Logger): void {
  for (const file of new Set(secretFiles.values())) {
    if (isExposed(file)) log.warn({ file }, "users other than its owner can read this secret: chmod 600");
  }
}

/** Names the doctor once, if there is still no session some time after a failure: the next way, or the next attempt, often works. */
function adviseDoctor(name: string, running: Handle, readiness: Readiness, log: Logger): void {
  let timer: NodeJS.Timeout | undefined;
  const isUseful = () => readiness.reasonAgainst() === "no session";
  const handleError = () => {
    if (timer !== undefined || !isUseful()) return;
    timer = setTimeout(() => {
      timer = undefined;
      if (!isUseful()) return;
      running.off("error", handleError);
      log.info({}, `"${name} doctor" with the same options finds the cause`);
    }, ADVICE_MS).unref();
  };
  running.on("error", handleError);
}

function reloadOnSignal<Options extends object, Running extends Handle>(
  { reload }: Program<Options, Running>,
  running: Running,
  secretFiles: ReadonlyMap<string, string>,
  log: Logger,
): void {
  try {
    const reloaded = reload?.(running, secretFiles);
    if (reloaded === undefined) log.info({}, "nothing to reload on SIGHUP");
    else {
      warnOfExposed(secretFiles, log);
      log.info(reloaded, "reloaded");
    }
  } catch (error) {
    log.error({ error: (error as Error).message }, "cannot reload; the previous settings stay in effect");
  }
}

/** @throws HostError ERR_LISTEN */
async function openAdmin<Options extends object, Running extends Handle>(
  program: Program<Options, Running>,
  running: Running,
  readiness: Readiness,
  { admin, adminToken }: HostOptions,
  log: Logger,
): Promise<AdminServer | undefined> {
  if (admin === undefined) return undefined;
  // Loaded only if it is used.
  const { AdminServer } = await import("../node/admin/admin-server.ts");
  const { loadDashboard } = await import("../node/admin/dashboard.ts");
  return AdminServer.listen(admin, adminToken, {
    program: program.name,
    version: packageVersion(),
    address: program.readyFields(running),
    dashboard: loadDashboard(new URL("../dashboard.html", import.meta.url)),
    stats: () => running.stats(),
    status: () => running.status(),
    flows: () => running.flows(),
    reasonAgainst: () => readiness.reasonAgainst(),
    onEvent: (listener) => onEvents(running, listener),
    log,
    handleListenerFailed: (error) => running.emit("listener-failed", error),
  });
}

/**
 * Writes at once and in order, without threads, so that nothing logged before a crash is lost.
 *
 * @param pretty  formats the log as text; undefined for JSON
 */
function openLog({ logLevel }: HostOptions, pretty: typeof prettyStream | undefined): Logger {
  const options = { level: logLevel, base: null };
  if (pretty === undefined) {
    const stderr = destination({ dest: 2, sync: true, maxLength: MAX_LOG_BYTES });
    // A closed terminal does not end the program; it only loses log lines.
    stderr.on("error", () => {});
    return pino(options, stderr);
  }
  const stream = pretty({
    destination: 2,
    sync: true,
    colorize: process.stderr.isTTY === true,
    singleLine: true,
    translateTime: "SYS:HH:MM:ss.l",
  });
  return pino(options, stream);
}

/** @returns a function that stops the reports */
function reportStats(running: Handle, { statsIntervalS, logFormat }: HostOptions, log: Logger): () => void {
  if (statsIntervalS === undefined) return () => {};
  let before = running.stats();
  let readAt = performance.now();
  const timer = setInterval(() => {
    const after = running.stats();
    const now = performance.now();
    const summary = summarize(before, after, (now - readAt) / 1000);
    before = after;
    readAt = now;
    if (logFormat === "json") log.info({ stats: summary }, "stats");
    else log.info({}, statsLine(summary));
  }, statsIntervalS * 1000);
  return () => clearInterval(timer);
}

/** The first signal drains and exits with 0, after the start if that is not complete; the second exits at once. */
class ClosingSignals {
  #first: NodeJS.Signals | undefined;
  #begin: ((signal: NodeJS.Signals) => void) | undefined;

  constructor() {
    const handle = (signal: NodeJS.Signals) => {
      if (this.#first !== undefined) process.exit(128 + constants.signals[signal]);
      this.#first = signal;
      this.#begin?.(signal);
    };
    for (const signal of CLOSING_SIGNALS) process.on(signal, handle);
    dropEarlyHandlers();
  }

  /** @returns true if a signal has already come, so that `close` has been called */
  handleStarted(close: () => Promise<void>, log: Logger): boolean {
    this.#begin = (signal) => {
      log.info({ signal }, "closing");
      notifySystemd("STOPPING=1", log);
      close().then(
        () => process.exit(0),
        (error: Error) => {
          log.error({ error: error.message }, "cannot shut down cleanly");
          process.exit(EXIT_FAILURE);
        },
      );
    };
    if (this.#first === undefined) return false;
    this.#begin(this.#first);
    return true;
  }
}

function packageVersion(): string {
  const text = readFileSync(new URL("../../package.json", import.meta.url), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}
