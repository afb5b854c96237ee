import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import type { Endpoint } from "../../host/addresses/endpoint.ts";
import type { Plugin } from "../../host/carriers/plugin-options.ts";
import type { PluginUse } from "../../host/carriers/plugin-use.ts";
import { systemReason } from "../system-text.ts";

const STANDARD_ERROR = 2;
const LOOPBACK = "127.0.0.1";
/** Time between two starts of a program that exits at once. */
const RESTART_MS = 1_000;
/** Time limit for a program to exit after it was told to. */
const END_MS = 1_000;

const processes = new Map<string, PluginProcess>();

/** @param server  the shadowsocks server that the plugin connects to */
export function usePlugin(
  plugin: Plugin,
  server: { readonly host: string; readonly port: number },
): PluginUse {
  const key = JSON.stringify([plugin, server]);
  let shared = processes.get(key);
  if (shared === undefined) {
    shared = new PluginProcess(plugin, server, () => processes.delete(key));
    processes.set(key, shared);
  }
  shared.uses++;
  return shared;
}

/** The program of a plugin (SIP003). It starts with the first connection, and again with a connection that finds it ended. */
class PluginProcess implements PluginUse {
  uses = 0;
  readonly #plugin: Plugin;
  readonly #server: { readonly host: string; readonly port: number };
  readonly #forget: () => void;
  #child: ChildProcess | undefined;
  #port = 0;
  #starting: Promise<void> | undefined;
  #startedAt = 0;
  #isAccepting = false;
  /** Why it last ended. */
  #reason: string | undefined;

  constructor(plugin: Plugin, server: { readonly host: string; readonly port: number }, forget: () => void) {
    this.#plugin = plugin;
    this.#server = server;
    this.#forget = forget;
  }

  get isStarting(): boolean {
    return !this.#isAccepting;
  }

  async endpoint(): Promise<Endpoint> {
    if (this.#child === undefined) {
      const isSoon = this.#reason !== undefined && Date.now() - this.#startedAt < RESTART_MS;
      if (isSoon) throw new Error(`plugin ${this.#plugin.program}: ${this.#reason}`);
      this.#starting ??= this.#start().finally(() => {
        this.#starting = undefined;
      });
      await this.#starting;
    }
    return { host: LOOPBACK, port: this.#port };
  }

  accepted(): void {
    this.#isAccepting = true;
  }

  async release(): Promise<void> {
    if (--this.uses > 0) return;
    this.#forget();
    await this.#starting;
    const child = this.#child;
    if (child === undefined) return;
    child.kill();
    const timer = setTimeout(() => child.kill("SIGKILL"), END_MS);
    await new Promise((done) => child.once("close", done));
    clearTimeout(timer);
  }

  async #start(): Promise<void> {
    this.#startedAt = Date.now();
    this.#isAccepting = false;
    this.#port = await freePort();
    const { program, options } = this.#plugin;
    const { spawn } = process.getBuiltinModule("node:child_process");
    const child = spawn(program, [], {
      // Its output goes to our standard error; our standard output is not for the plugin.
      stdio: ["ignore", STANDARD_ERROR, STANDARD_ERROR],
      env: {
        ...process.env,
        SS_REMOTE_HOST: this.#server.host,
        SS_REMOTE_PORT: String(this.#server.port),
        SS_LOCAL_HOST: LOOPBACK,
        SS_LOCAL_PORT: String(this.#port),
        ...(options === "" ? {} : { SS_PLUGIN_OPTIONS: options }),
      },
    });
    this.#child = child;
    const end = () => child.kill();
    process.on("exit", end);
    child.once("error", (error) => {
      this.#reason = systemReason(error);
    });
    child.once("close", (status, signal) => {
      process.off("exit", end);
      if (status === null || status >= 0) this.#reason = `it ended (${status ?? signal})`;
      this.#child = undefined;
    });
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, LOOPBACK);
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}
