// The entry point of a WorkerGroup's thread: runs one udp-local or udp-server, and reports to the group.
import { parentPort, workerData } from "node:worker_threads";
import type { HostError } from "../core/errors.ts";
import { ERROR_CODES } from "../core/errors.ts";
import type { Logger, LogMethod } from "../host/log.ts";
import type { KeyOption } from "../host/options/keys.ts";
import type { ResolvedUdpLocalOptions } from "../host/options/udp-local.ts";
import type { ResolvedUdpServerOptions } from "../host/options/udp-server.ts";
import type { KeptState } from "../host/restart/kept-state.ts";
import type { TunnelStats } from "../host/stats/tunnel-stats.ts";
import type { HandedOver } from "../host/workers.ts";
import type { UdpLocal, UdpServer } from "./handles.ts";
import { onEvents } from "./handles.ts";
import { startUdpLocalWorker } from "./udp-local.ts";
import { startUdpServerWorker } from "./udp-server.ts";
import type { GroupMessage, WorkerMessage, WorkerTask } from "./worker-group.ts";

const STATS_MS = 200;

const port = parentPort!;
const { program, options, ...place } = workerData as WorkerTask;
const tell = (message: WorkerMessage): void => port.postMessage(message);
const logAt =
  (level: "debug" | "info" | "warn" | "error"): LogMethod =>
  (fields, message) =>
    tell({ kind: "log", level, fields: { ...fields, worker: place.index }, message });
const log: Logger = {
  debug: logAt("debug"),
  info: logAt("info"),
  warn: logAt("warn"),
  error: logAt("error"),
};

const early: HandedOver[] = [];
let replaceKeys = (_keys: readonly KeyOption[]): void => {};
let takeOver = (connection: HandedOver): void => void early.push(connection);
const earlyStates: KeptState[] = [];
let restore = (states: readonly KeptState[]): void => void earlyStates.push(...states);
let handOn: (() => Promise<readonly KeptState[]>) | undefined;
let handle: UdpLocal | UdpServer | undefined;
port.on("message", (message: GroupMessage) => {
  if (message.kind === "take-over") takeOver(message.connection);
  else if (message.kind === "question") void report(message.query, message.about);
  else if (message.kind === "keys") replaceKeys(message.keys);
  else if (message.kind === "restore") restore(message.states);
  else void close(message.keeps);
});

void run();

async function run(): Promise<void> {
  try {
    if (program === "udp-local")
      handle = await startUdpLocalWorker(options as ResolvedUdpLocalOptions, log, place);
    else {
      const server = startUdpServerWorker(options as ResolvedUdpServerOptions, log, place);
      handle = server;
      takeOver = (connection) => {
        tell({ kind: "taken-over", descriptor: connection.descriptor });
        server.takeOver(connection);
      };
      replaceKeys = (keys) => server.replaceKeys(keys);
      restore = (states) => server.restore(states);
      handOn = () => server.handOn();
      restore(earlyStates);
      early.splice(0).forEach(takeOver);
    }
    onEvents(handle, (name, fields) => tell({ kind: "event", name, fields }));
    tell({ kind: "ready" });
    let last: TunnelStats | undefined;
    setInterval(() => {
      const stats = handle?.stats();
      if (stats === undefined || JSON.stringify(stats) === JSON.stringify(last)) return;
      last = stats;
      tell({ kind: "stats", stats });
    }, STATS_MS).unref();
  } catch (error) {
    const { code, message } = error as HostError;
    tell({ kind: "failed", code, detail: message.replace(`${ERROR_CODES[code]?.text}: `, "") });
    port.close();
  }
}

async function report(query: number, about: "status" | "flows"): Promise<void> {
  const answer = await handle?.[about]();
  if (answer !== undefined) tell({ kind: "answer", query, answer });
}

async function close(keeps: boolean): Promise<void> {
  const states = keeps ? await handOn?.() : undefined;
  if (states === undefined) await handle?.close();
  else tell({ kind: "handed-on", states });
  if (handle !== undefined) tell({ kind: "stats", stats: handle.stats() });
  // Posted messages are delivered before the thread ends.
  port.close();
  setTimeout(() => process.exit(0), 100).unref();
}
