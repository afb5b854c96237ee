import { spawn } from "node:child_process";
import type { Socket } from "node:dgram";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { encodeKeptSessions } from "../../../src/core/server/restart/kept-sessions.ts";
import type { UdpLocal } from "../../../src/node/handles.ts";
import { programCommand } from "../../support/hosts.ts";
import { startUdpLocal } from "../../support/start.ts";
import { describeWith, freePort } from "../peers/peer-program.ts";

const MANAGER = fileURLToPath(new URL("../peers/service-manager.py", import.meta.url));
const PSK = Buffer.from("0123456789abcdef0123456789abcdef");
const FLOWS = 8;
const RESTARTS = Number(process.env.UNDERPASS_RESTARTS ?? 5);

interface ManagerLine {
  readonly port?: number;
  readonly pid?: number;
  readonly ready?: true;
  readonly ended?: number;
  readonly stored?: readonly string[];
}

/** A udp-server under a service manager that restarts it. */
class Service {
  port = 0;
  /** Log lines. */
  readonly log: { readonly msg?: string; readonly [field: string]: unknown }[] = [];
  readonly #folder = mkdtempSync(join(tmpdir(), "underpass-keep-"));
  readonly #manager;
  readonly #lines;

  /** @param states  contents of the files that an earlier process left */
  constructor(options: readonly string[], capacity = 1_000, states: readonly Uint8Array[] = []) {
    const keyFile = join(this.#folder, "psk");
    writeFileSync(keyFile, PSK, { mode: 0o600 });
    const fixed = ["--listen", "fd:tunnels", "--psk-file", keyFile, "--allow", "127.0.0.1/32"];
    const command = [...programCommand("udp-server"), ...fixed, "--log-format", "json", ...options];
    const files = states.map((bytes, i) => {
      const file = join(this.#folder, `state${i}`);
      writeFileSync(file, bytes);
      return file;
    });
    this.#manager = spawn("/usr/bin/python3", [MANAGER, String(capacity), ...command], {
      stdio: ["pipe", "pipe", "pipe"],
      env: { ...process.env, SERVICE_MANAGER_STORE: files.join(":") },
    });
    this.#lines = createInterface({ input: this.#manager.stdout })[Symbol.asyncIterator]();
    createInterface({ input: this.#manager.stderr }).on("line", (line) => {
      if (line.startsWith("{")) this.log.push(JSON.parse(line));
    });
  }

  async #until(isMeant: (line: ManagerLine) => boolean): Promise<ManagerLine> {
    for (;;) {
      const { value, done } = await this.#lines.next();
      if (done) throw new Error("the service manager has ended");
      const line = JSON.parse(value) as ManagerLine;
      if (isMeant(line)) return line;
    }
  }

  async start(): Promise<void> {
    this.port = (await this.#until(({ port }) => port !== undefined)).port!;
    await this.#until(({ ready }) => ready === true);
  }

  /** @returns the names of the descriptors that the process left */
  async restart(signal = "SIGTERM"): Promise<readonly string[]> {
    this.#manager.stdin.write(`${signal}\n`);
    const { stored } = await this.#until(({ ended }) => ended !== undefined);
    await this.#until(({ ready }) => ready === true);
    return stored!;
  }

  /** Numbers of sessions that each process after the first resumed. */
  get restored(): unknown[] {
    return this.log.filter(({ msg }) => msg === "restored earlier sessions").map(({ sessions }) => sessions);
  }

  async stop(): Promise<void> {
    this.#manager.kill();
    await once(this.#manager, "exit");
    rmSync(this.#folder, { recursive: true });
  }
}

/** One application's socket, which sends numbered datagrams to a forward. */
class Flow {
  readonly name: string;
  readonly #socket: Socket;
  readonly #port: number;
  sent = 0;
  /** Numbers in the order of their answers. */
  readonly answers: number[] = [];

  constructor(name: string, port: number) {
    this.name = name;
    this.#port = port;
    this.#socket = createSocket("udp4");
    this.#socket.on("message", (data) => this.answers.push(Number(String(data).split(" ")[1])));
  }

  send(): void {
    this.#socket.send(`${this.name} ${this.sent++}`, this.#port, "127.0.0.1");
  }

  close(): void {
    this.#socket.close();
  }
}

/** An echo that records what it receives. */
class Target {
  readonly socket = createSocket("udp4");
  /** Numbers and source ports by flow. */
  readonly numbers = new Map<string, number[]>();
  readonly ports = new Map<string, Set<number>>();

  async open(): Promise<void> {
    this.socket.on("message", (data, { port, address }) => {
      const [name, number] = String(data).split(" ");
      this.numbers.set(name, [...(this.numbers.get(name) ?? []), Number(number)]);
      this.ports.set(name, (this.ports.get(name) ?? new Set()).add(port));
      this.socket.send(data, port, address);
    });
    this.socket.bind(0, "127.0.0.1");
    await once(this.socket, "listening");
  }

  get endpoint(): string {
    return `127.0.0.1:${this.socket.address().port}`;
  }
}

async function allAnswer(flows: readonly Flow[]): Promise<void> {
  const before = flows.map(({ answers }) => answers.length);
  // Two, because the first may have been in flight already.
  while (!flows.every(({ answers }, i) => answers.length > before[i] + 1)) await sleep(10);
}

function flowsOf(local: UdpLocal, name: string): Flow[] {
  const port = Number(local.address.forwards[0].listen.split(":").at(-1));
  return Array.from({ length: FLOWS }, (_, i) => new Flow(`${name}${i}`, port));
}

const isPlain = process.env.UNDERPASS_IO === "plain";

describe.skipIf(isPlain)("with native I/O", () => {
  describeWith(["/usr/bin/python3", "systemd-notify"], "udp-server --keep-sessions", () => {
    it("keeps sessions and source ports across restarts under load, and loses only datagrams in flight", async () => {
      const shadowsocks = `ss://aes-256-gcm:a%20password@127.0.0.1:${await freePort()}`;
      const service = new Service(["--keep-sessions", "--listen", shadowsocks, "--workers", "1"]);
      const target = new Target();
      await Promise.all([service.start(), target.open()]);
      const server = `127.0.0.1:${service.port}`;
      const start = (extra: object) =>
        startUdpLocal({
          ...{ listen: false, server, psk: PSK, ageBudgetMs: 10_000 },
          forwards: [{ listen: "127.0.0.1:0", target: target.endpoint }],
          ...extra,
        });
      const locals = [
        await start({ lanes: 4 }),
        await start({ via: [shadowsocks] }),
        await start({ lanes: 1 }),
      ];
      const events: string[] = [];
      for (const local of locals) {
        for (const name of ["session-up", "session-resumed"]) local.on(name, () => events.push(name));
      }
      const ending = await start({ lanes: 1 });
      const flows = locals.flatMap((local, i) => flowsOf(local, `client${i}-`));
      const endingFlows = flowsOf(ending, "ending-");
      const load = setInterval(() => {
        for (const flow of flows) flow.send();
      }, 10);
      try {
        for (const flow of endingFlows) flow.send();
        await allAnswer(flows);
        while (!endingFlows.every(({ answers }) => answers.length > 0)) await sleep(10);
        await ending.close();
        events.length = 0;
        const steady: [Flow, number, number][] = [];
        for (let i = 0; i < RESTARTS; i++) {
          const from = flows.map(({ sent }) => sent);
          await allAnswer(flows);
          for (const [place, flow] of flows.entries()) {
            // The last few are in flight.
            const last = flow.answers.at(-1)!;
            for (let number = from[place]; number < last - 5; number++) steady.push([flow, number, i]);
          }
          const stored = await service.restart();
          expect(stored.filter((name) => name === "sessions")).toHaveLength(1);
          expect(stored.filter((name) => name === "udp")).toHaveLength(flows.length);
          await allAnswer(flows);
        }
        clearInterval(load);
        expect(service.restored).toEqual(new Array(RESTARTS).fill(3));
        expect(events.filter((name) => name === "session-up")).toEqual([]);
        for (const flow of flows) {
          const numbers = target.numbers.get(flow.name)!;
          expect(target.ports.get(flow.name)!.size).toBe(1);
          expect(new Set(numbers).size).toBe(numbers.length);
          expect(new Set(flow.answers).size).toBe(flow.answers.length);
        }
        const lost = steady.filter(([flow, number]) => !flow.answers.includes(number));
        expect(lost.map(([flow, number, restart]) => `${flow.name} ${number} before ${restart}`)).toEqual([]);

        // A crash leaves no state, not even of an earlier restart.
        const again = setInterval(() => {
          for (const flow of flows) flow.send();
        }, 10);
        expect(await service.restart("SIGKILL")).toEqual([]);
        await allAnswer(flows);
        clearInterval(again);
        expect(service.restored).toHaveLength(RESTARTS);
        expect(events.filter((name) => name === "session-up")).toHaveLength(locals.length);
        for (const flow of flows) expect(target.ports.get(flow.name)!.size).toBe(2);
      } finally {
        clearInterval(load);
        for (const flow of [...flows, ...endingFlows]) flow.close();
        await Promise.all(locals.map((local) => local.close()));
        await service.stop();
        target.socket.close();
      }
    });

    it("keeps the sessions of all workers", async () => {
      const service = new Service(["--keep-sessions", "--workers", "3"]);
      const target = new Target();
      await Promise.all([service.start(), target.open()]);
      const locals = await Promise.all(
        [1, 2, 3, 4].map(() =>
          startUdpLocal({
            ...{
              listen: false,
              server: `127.0.0.1:${service.port}`,
              psk: PSK,
              lanes: 1,
              ageBudgetMs: 10_000,
            },
            forwards: [{ listen: "127.0.0.1:0", target: target.endpoint }],
          }),
        ),
      );
      const flows = locals.flatMap((local, i) => flowsOf(local, `client${i}-`));
      const load = setInterval(() => {
        for (const flow of flows) flow.send();
      }, 10);
      try {
        await allAnswer(flows);
        await service.restart();
        await allAnswer(flows);
        clearInterval(load);
        const restored = service.restored as number[];
        expect(restored.length).toBeGreaterThan(1);
        expect(restored.reduce((sum, count) => sum + count, 0)).toBe(locals.length);
        for (const flow of flows) expect(target.ports.get(flow.name)!.size).toBe(1);
      } finally {
        clearInterval(load);
        for (const flow of flows) flow.close();
        await Promise.all(locals.map((local) => local.close()));
        await service.stop();
        target.socket.close();
      }
    });

    it("begins names of sessions after those of earlier ones in all of its workers", async () => {
      const session = {
        ...{ id: new Uint8Array(16), key: new Uint8Array(32), proof: new Uint8Array(16), holder: undefined },
        ...{ number: 41, nextContextId: 1, lingerMs: 1, receipts: undefined, associations: [], contexts: [] },
      };
      const state = encodeKeptSessions({ clock: 0, sessions: [session] });
      const service = new Service(["--keep-sessions", "--workers", "2"], 10, [state]);
      await service.start();
      const server = `127.0.0.1:${service.port}`;
      const options = { listen: "127.0.0.1:0", server, psk: PSK, lanes: 1 };
      const locals = await Promise.all([1, 2].map(() => startUdpLocal(options)));
      try {
        const names = () =>
          service.log.filter(({ msg }) => msg === "session-up").map((line) => String(line.session));
        await expect.poll(names, { timeout: 10_000 }).toHaveLength(2);
        expect(names().sort()).toEqual(["s42", "s43"]);
      } finally {
        await Promise.all(locals.map((local) => local.close()));
        await service.stop();
      }
    });

    it("starts without unreadable state, logs each such file once, and does not get it again", async () => {
      const garbage = [Buffer.from("UDPKEPT\n\x02"), Buffer.alloc(0), Buffer.alloc(1_000_000, 0xff)];
      const service = new Service(["--keep-sessions", "--workers", "1"], 10, garbage);
      await service.start();
      try {
        expect(await service.restart("SIGKILL")).toEqual([]);
        const refused = service.log.filter(({ msg }) => msg === "does not go on with earlier sessions");
        expect(refused.map(({ error }) => error)).toEqual([
          "the state of sessions cannot be read: it has version 2, this program reads 1",
          "the state of sessions cannot be read: it ends too early",
          "the state of sessions cannot be read: it does not begin with the expected bytes",
        ]);
      } finally {
        await service.stop();
      }
    });

    it("continues associations whose sockets did not fit into the store from other ports", async () => {
      const service = new Service(["--keep-sessions", "--workers", "1"], 4);
      const target = new Target();
      await Promise.all([service.start(), target.open()]);
      const local = await startUdpLocal({
        ...{ listen: false, server: `127.0.0.1:${service.port}`, psk: PSK, lanes: 1, ageBudgetMs: 10_000 },
        forwards: [{ listen: "127.0.0.1:0", target: target.endpoint }],
      });
      const flows = flowsOf(local, "client-");
      const load = setInterval(() => {
        for (const flow of flows) flow.send();
      }, 10);
      try {
        await allAnswer(flows);
        expect(await service.restart()).toEqual(["sessions", "udp", "udp", "udp"]);
        await allAnswer(flows);
        const kept = flows.filter(({ name }) => target.ports.get(name)!.size === 1);
        expect(kept).toHaveLength(3);
        const [line] = service.log.filter(({ msg }) => msg?.startsWith("restored"));
        expect(line).toMatchObject({ sessions: 1, associations: FLOWS, socketsMissing: FLOWS - 3 });
      } finally {
        clearInterval(load);
        for (const flow of flows) flow.close();
        await local.close();
        await service.stop();
        target.socket.close();
      }
    });
  });
});
