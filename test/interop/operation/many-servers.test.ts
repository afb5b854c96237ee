import type { ChildProcess } from "node:child_process";
import { spawn } from "node:child_process";
import type { Socket as UdpSocket } from "node:dgram";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { UdpLocal } from "../../../src/node/handles.ts";
import { startUdpLocal } from "../../../src/node/udp-local.ts";
import type { PeerProgram } from "../peers/peer-program.ts";
import { describeWith, freePort, startPeer } from "../peers/peer-program.ts";
import { Recorder, replay } from "../peers/recorder.ts";

const SERVER_PROGRAM = resolve(import.meta.dirname, "../../../dist/cli/udp-server.js");
const CONFIG = resolve(import.meta.dirname, "../../../deploy/haproxy/haproxy.cfg");
const KEY = "sixteen byte key";
const CLIENTS = 8;
const FLOWS_PER_CLIENT = 125;
/** Sending interval of each flow. */
const PERIOD_MS = 250;
/** Heartbeat of the lanes: clients give up a server after three silent heartbeats. */
const HEARTBEAT_MS = 1_000;
const DRAINED_MS = 2_000;

interface Server {
  readonly child: ChildProcess;
  readonly port: number;
  readonly adminPort: number;
}

interface Status {
  readonly sessions: readonly { readonly lanes: readonly unknown[] }[];
}

/** A client and its flows, each with its own socket. */
class Client {
  readonly events: { readonly name: string; readonly value: unknown; readonly at: number }[] = [];
  readonly failures: string[] = [];
  /** Sending time of the newest answered datagram, by flow. */
  readonly answeredAt = new Array<number>(FLOWS_PER_CLIENT).fill(0);
  readonly ports = new Set<number>();
  readonly local: UdpLocal;
  #sockets: UdpSocket[] = [];
  #timers: NodeJS.Timeout[] = [];

  constructor(local: UdpLocal) {
    this.local = local;
    for (const name of ["session-up", "session-down", "session-resumed", "session-renewed"]) {
      local.on(name, (value) => this.events.push({ name, value, at: performance.now() }));
    }
    local.on("error", (error) => this.failures.push(error.message));
  }

  start(): void {
    const port = Number(this.local.address.forwards[0].listen.split(":")[1]);
    for (let flow = 0; flow < FLOWS_PER_CLIENT; flow++) {
      const socket = createSocket("udp4");
      socket.on("message", (data) => {
        this.answeredAt[flow] = Math.max(this.answeredAt[flow], data.readDoubleBE(0));
        this.ports.add(data.readUInt16BE(8));
      });
      const send = () => {
        const data = Buffer.alloc(100);
        data.writeDoubleBE(performance.now());
        socket.send(data, port, "127.0.0.1");
      };
      this.#sockets.push(socket);
      this.#timers.push(
        setTimeout(
          () => this.#timers.push(setInterval(send, PERIOD_MS)),
          (flow * PERIOD_MS) / FLOWS_PER_CLIENT,
        ),
      );
    }
  }

  /** Whether every flow has an answer to a datagram sent after `time`. */
  hasAllAfter(time: number): boolean {
    return this.answeredAt.every((at) => at > time);
  }

  async close(): Promise<void> {
    for (const timer of this.#timers) clearTimeout(timer);
    for (const socket of this.#sockets) socket.close();
    await this.local.close();
  }
}

describeWith(["haproxy"], "three udp-servers behind HAProxy as in deploy/", () => {
  const folder = mkdtempSync(join(tmpdir(), "underpass-many-"));
  const echo = createSocket("udp4");
  const servers: Server[] = [];
  const clients: Client[] = [];
  let proxy: PeerProgram;
  let recorder: Recorder;

  async function startServer(id: number): Promise<Server> {
    const argv = [
      ...[
        SERVER_PROGRAM,
        "--listen",
        "127.0.0.1:0",
        "--psk-file",
        join(folder, "psk"),
        "--server-id",
        `${id}`,
      ],
      ...["--drain", "10", "--admin", "127.0.0.1:0", "--allow", "127.0.0.1/32", "--log-format", "json"],
      ...["--heartbeat-ms", `${HEARTBEAT_MS}`, "--age-budget-ms", "2000", "--workers", `${id}`],
    ];
    const child = spawn(process.execPath, argv, { stdio: ["ignore", "ignore", "pipe"] });
    for await (const line of createInterface({ input: child.stderr! })) {
      const { ready, listen, admin } = JSON.parse(line);
      if (ready === undefined) continue;
      child.stderr!.resume();
      return { child, port: Number(listen[0].split(":")[1]), adminPort: Number(admin.split(":")[1]) };
    }
    throw new Error("a server does not start");
  }

  async function statusOf({ adminPort }: Server): Promise<Status> {
    return (await (await fetch(`http://127.0.0.1:${adminPort}/status`)).json()) as Status;
  }

  const hasAllAfter = (time: number) => clients.every((client) => client.hasAllAfter(time));

  beforeAll(async () => {
    echo.on("message", (data, { port }) => {
      data.writeUInt16BE(port, 8);
      echo.send(data, port, "127.0.0.1");
    });
    echo.bind(0, "127.0.0.1");
    await once(echo, "listening");
    writeFileSync(join(folder, "psk"), KEY, { mode: 0o600 });
    for (const id of [1, 2, 3]) servers.push(await startServer(id));
    const port = await freePort();
    let config = readFileSync(CONFIG, "utf8").replace(/bind :443 .*/, `bind 127.0.0.1:${port}`);
    for (const [index, server] of servers.entries()) {
      const line = `server s${index + 1} 10.0.0.1${index + 1}:3456`;
      expect(config).toContain(line);
      config = config.replace(line, `server s${index + 1} 127.0.0.1:${server.port} port ${server.adminPort}`);
    }
    writeFileSync(join(folder, "haproxy.cfg"), config);
    proxy = await startPeer("haproxy", ["-db", "-f", join(folder, "haproxy.cfg")], port);
    recorder = new Recorder(() => port);
    const address = await recorder.listen();
    for (let i = 0; i < CLIENTS; i++) {
      const local = await startUdpLocal({
        ...{
          server: address,
          psk: Buffer.from(KEY),
          lanes: 2,
          heartbeatMs: HEARTBEAT_MS,
          ageBudgetMs: 2_000,
        },
        forwards: [{ listen: "127.0.0.1:0", target: `127.0.0.1:${echo.address().port}` }],
      });
      clients.push(new Client(local));
      await once(local, "session-up");
    }
    for (const client of clients) client.start();
  });

  afterAll(async () => {
    await Promise.all(clients.map((client) => client.close()));
    recorder?.close();
    await proxy?.stop();
    for (const { child } of servers) {
      if (child.exitCode === null && child.signalCode === null) {
        child.kill("SIGKILL");
        await once(child, "exit");
      }
    }
    echo.close();
    rmSync(folder, { recursive: true, force: true });
  });

  it("spread the sessions, with all lanes of a session at one server", async () => {
    await expect.poll(() => hasAllAfter(1), { timeout: 10_000 }).toBe(true);
    const counts: number[] = [];
    for (const server of servers) {
      const { sessions } = await statusOf(server);
      counts.push(sessions.length);
      for (const { lanes } of sessions) expect(lanes).toHaveLength(2);
    }
    expect(counts.reduce((sum, count) => sum + count)).toBe(CLIENTS);
    for (const count of counts) expect(count).toBeGreaterThan(0);
    expect(clients.every(({ events }) => events.length === 1)).toBe(true);
  });

  it("accept no recorded handshake at any server", async () => {
    const recordings = recorder.recordings.slice(0, 6);
    for (const { port } of servers) {
      for (const pieces of recordings) {
        for (const status of await replay(port, pieces)) expect(["400", "401", "404"]).toContain(status);
      }
    }
  });

  it("move the sessions of a drained server to others within 2 s, after which it exits", async () => {
    const [server] = servers;
    const { sessions } = await statusOf(server);
    const at = performance.now();
    server.child.kill("SIGTERM");
    const moved = () =>
      clients.filter(({ events }) =>
        events.some(
          ({ name, value }) => name === "session-renewed" && (value as { reason: string }).reason === "moved",
        ),
      );
    await expect.poll(() => moved().length, { timeout: 10_000 }).toBe(sessions.length);
    for (const { events } of moved()) {
      expect(events.map(({ name }) => name)).toEqual(["session-up", "session-renewed"]);
      expect(events[1].at - at).toBeLessThan(DRAINED_MS);
    }
    await expect.poll(() => hasAllAfter(at + DRAINED_MS), { timeout: 10_000 }).toBe(true);
    if (server.child.exitCode === null) await once(server.child, "exit");
    expect(server.child.exitCode).toBe(0);
    // The client has ended the session by itself, so the server's closing of its connections is no failure.
    expect(clients.flatMap(({ failures }) => failures)).toEqual([]);
    // Only moved clients get other source ports.
    for (const { ports } of moved()) expect(ports.size).toBeGreaterThan(FLOWS_PER_CLIENT);
    const others = clients.filter((client) => !moved().includes(client));
    for (const { events, ports } of others) {
      expect(events).toHaveLength(1);
      expect(ports.size).toBe(FLOWS_PER_CLIENT);
    }
  });

  it("replace the sessions of a killed server within the time that heartbeats allow", async () => {
    const before = clients.map(({ events }) => events.length);
    const at = performance.now();
    servers[1].child.kill("SIGKILL");
    await once(servers[1].child, "exit");
    await expect.poll(() => hasAllAfter(at), { timeout: 15_000 }).toBe(true);
    const latest = Math.max(...clients.flatMap(({ answeredAt }) => answeredAt));
    expect(latest).toBeGreaterThan(at);
    const struck = clients.filter(({ events }, i) => events.length > before[i]);
    expect(struck.length).toBeGreaterThan(0);
    for (const { events } of struck) {
      const [down, up] = events.slice(-2);
      expect(down.name).toBe("session-down");
      expect(up).toMatchObject({ name: "session-up", value: { isAnother: true } });
      expect(up.at - at).toBeLessThan(3 * HEARTBEAT_MS + 2_000);
    }
    const { sessions } = await statusOf(servers[2]);
    expect(sessions.length).toBeGreaterThanOrEqual(CLIENTS);
  });
});
