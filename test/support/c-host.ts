import type { ChildProcess } from "node:child_process";
import { spawn, spawnSync } from "node:child_process";
import { EventEmitter, once } from "node:events";
import { closeSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Logger } from "../../src/host/log.ts";
import type { OptionFields } from "../../src/host/options/fields/fields.ts";
import type { EndpointStatus, FlowStatus } from "../../src/host/stats/status.ts";
import type { TunnelStats } from "../../src/host/stats/tunnel-stats.ts";
import { emitOn } from "../../src/node/handles.ts";
import { C_DRIVER, type End } from "./hosts.ts";

/** A line of output from capi/tests/host-driver.c. */
interface Line {
  readonly event: string;
  readonly status: number;
  readonly code?: string;
  readonly text: string;
  readonly listen: string[];
  readonly socks5?: string;
  /** For a line of the log. */
  readonly level: number;
  readonly fields: object;
}

const LOG_LEVELS = ["debug", "info", "warn", "error"] as const;

const running = new Set<ChildProcess>();
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});

/** An instance of the C library in a process of its own, with the interface of a handle on Node. */
export class CHostHandle extends EventEmitter {
  readonly #end: End;
  readonly #child: ChildProcess;
  readonly #folder: string;
  /** Read synchronously, as `stats()` is. */
  readonly #replies: number;
  readonly #exited: Promise<unknown>;
  #lastStats: TunnelStats | undefined;
  #isReleased = false;
  /** Events that arrived before it had started. */
  #held: Line[] | undefined = [];
  /** Rejects if it does not start. */
  readonly started: Promise<Line>;

  replaceKeys(): never {
    throw new Error("the C library does not replace keys");
  }

  constructor(end: End, fields: OptionFields, options: object, log: Logger) {
    super();
    this.#end = end;
    this.#folder = mkdtempSync(join(tmpdir(), "underpass-host-"));
    const config = JSON.stringify(this.#configOf(fields, options));
    const fifo = join(this.#folder, "replies");
    if (spawnSync("mkfifo", [fifo]).status !== 0) throw new Error("mkfifo fails");
    // Opened for reading and writing, so that opening does not wait for the other side.
    this.#replies = openSync(fifo, "r+");
    this.#child = spawn(C_DRIVER, [end, config], { stdio: ["pipe", "pipe", "inherit", this.#replies] });
    running.add(this.#child);
    this.#child.stdin!.on("error", () => {});
    this.#exited = once(this.#child, "exit");
    this.started = new Promise((done, failed) => {
      this.#child.once("error", failed);
      createInterface({ input: this.#child.stdout! }).on("line", (text) => {
        const line: Line = JSON.parse(text);
        if (line.event === "failed") failed(errorOf(line));
        else if (line.event === "log") log[LOG_LEVELS[line.level]](line.fields, line.text);
        else if (line.event === "ready") {
          done(line);
          // On Node, nothing happens before the caller can listen.
          setImmediate(() => {
            const held = this.#held!;
            this.#held = undefined;
            for (const each of held) this.#tell(each);
          });
        } else if (this.#held === undefined) this.#tell(line);
        else this.#held.push(line);
      });
    });
    this.#child.once("exit", (code, signal) => {
      running.delete(this.#child);
      // A fault of the library must not look like something else.
      if (signal !== null || (code !== 0 && code !== 2)) {
        throw new Error(`the C library's udp-${end} ended by itself: ${code ?? signal}`);
      }
    });
  }

  /** The options as the library reads them. If it lacks one, nothing is left behind: some of the files hold keys. */
  #configOf(fields: OptionFields, options: object): Record<string, unknown> {
    try {
      return configOf(fields, options, this.#folder);
    } catch (error) {
      rmSync(this.#folder, { recursive: true, force: true });
      throw error;
    }
  }

  #tell(line: Line): void {
    const value = this.#end === "server" ? { session: line.text } : undefined;
    emitOn(this, line.event, line.status === 0 ? value : errorOf(line));
  }

  stats(): TunnelStats {
    if (this.#child.exitCode !== null || !this.#child.stdin!.writable) return this.#lastStats!;
    this.#child.stdin!.write("report\n");
    let text = "";
    const bytes = Buffer.alloc(65_536);
    while (!text.endsWith("\n")) text += bytes.toString("utf8", 0, readSync(this.#replies, bytes));
    this.#lastStats = JSON.parse(text) ?? this.#lastStats;
    return this.#lastStats!;
  }

  residentBytes(): number {
    const [, kib] = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${this.#child.pid}/status`, "utf8"))!;
    return Number(kib) * 1024;
  }

  status(): Promise<EndpointStatus> {
    return Promise.reject(new Error("the C library has no status()"));
  }

  flows(): Promise<FlowStatus> {
    return Promise.reject(new Error("the C library has no flows()"));
  }

  async close(): Promise<void> {
    if (this.#child.exitCode === null && this.#child.stdin!.writable) {
      this.#child.stdin!.end("stop\n");
      await this.#exited;
    }
    this.release();
  }

  release(): void {
    if (this.#isReleased) return;
    this.#isReleased = true;
    rmSync(this.#folder, { recursive: true, force: true });
    closeSync(this.#replies);
  }
}

function errorOf({ text, code, status }: Line): Error {
  return Object.assign(new Error(text), { code, status });
}

/** Converts the library's options to members of a config, with files for secrets. */
function configOf(fields: OptionFields, options: object, folder: string): Record<string, unknown> {
  const config: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined) continue;
    const { flag, isSecretFile } = fields[name] ?? {};
    if (flag === undefined) throw new Error(`${name}: the C library has no such option`);
    config[flag] = isSecretFile ? secretFile(join(folder, flag), value) : value;
  }
  return config;
}

function secretFile(path: string, value: unknown): string {
  const isText = typeof value === "string" || value instanceof Uint8Array;
  const { user, password } = value as { user: string; password: string };
  writeFileSync(path, isText ? value : `${user}:${password}`, { mode: 0o600 });
  return path;
}

/** Starts an instance. @throws the library's error, with its code */
export async function startInC(
  end: End,
  fields: OptionFields,
  options: object,
  log: Logger,
): Promise<CHostHandle & { readonly ready: Line }> {
  const host = new CHostHandle(end, fields, options, log);
  try {
    return Object.assign(host, { ready: await host.started });
  } catch (error) {
    host.release();
    throw error;
  }
}
