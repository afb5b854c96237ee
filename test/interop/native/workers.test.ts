import type { ChildProcess } from "node:child_process";
import { spawn } from "node:child_process";
import type { Socket as UdpSocket } from "node:dgram";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import type { Socket } from "node:net";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { UdpLocal } from "../../../src/node/handles.ts";
import { loadNativeModule } from "../../../src/node/load-native-module.ts";
import { startUdpLocal } from "../../../src/node/udp-local.ts";
import { BIND_PATH, encodeUpgradeRequest } from "../../../src/wire/http/upgrade.ts";

const PROGRAM = resolve(import.meta.dirname, "../../../dist/cli/udp-server.js");
const LOCAL_PROGRAM = resolve(import.meta.dirname, "../../../dist/cli/udp-local.js");
const WORKERS = 3;
/** Preloaded into the server: a worker throws once if CRASH_FILE exists, and at its start if CRASH_FILE-at-start does. */
const CRASH = `
const { existsSync, unlinkSync } = require("node:fs");
const { isMainThread } = require("node:worker_threads");
if (!isMainThread && existsSync(process.env.CRASH_FILE + "-at-start")) throw new Error("does not start on purpose");
if (!isMainThread) setInterval(() => {
  if (!existsSync(process.env.CRASH_FILE)) return;
  unlinkSync(process.env.CRASH_FILE);
  throw new Error("crashes on purpose");
}, 20);`;

interface LogLine {
  readonly msg?: string;
  readonly worker?: number;
  readonly session?: string;
  readonly ready?: string;
  readonly listen?: string[];
  readonly stats?: { readonly sessions: number };
}

describe.skipIf(loadNativeModule() instanceof Error && process.env.CI === undefined)(
  `udp-server with ${WORKERS} workers`,
  () => {
    let folder: string;
    let server: ChildProcess;
    let lines: LogLine[];
    let serverPort: number;
    let echo: UdpSocket;
    let sources: Map<string, number>;
    const clients: UdpLocal[] = [];
    const closers: (() => void)[] = [];

    beforeEach(async () => {
      folder = mkdtempSync(join(tmpdir(), "underpass-workers-"));
      writeFileSync(join(folder, "crash.cjs"), CRASH);
      writeFileSync(join(folder, "psk"), "0123456789abcdef0123456789abcdef");
      lines = [];
      const args = ["--listen", "127.0.0.1:0", "--workers", `${WORKERS}`, "--allow", "127.0.0.0/8"];
      server = spawn(
        process.execPath,
        [
          ...["--require", join(folder, "crash.cjs"), PROGRAM, ...args],
          ...["--psk-file", join(folder, "psk"), "--log-format", "json", "--stats-interval", "1"],
        ],
        { stdio: ["ignore", "ignore", "pipe"], env: { ...process.env, CRASH_FILE: join(folder, "crash") } },
      );
      createInterface({ input: server.stderr! }).on("line", (line) => lines.push(JSON.parse(line)));
      const ready = await vi.waitUntil(() => lines.find((line) => line.ready !== undefined), {
        timeout: 10_000,
      });
      serverPort = Number(ready.listen?.[0].split(":")[1]);
      sources = new Map();
      echo = createSocket("udp4").bind(0, "127.0.0.1");
      await once(echo, "listening");
      echo.on("message", (data, { port, address }) => {
        sources.set(data.toString(), port);
        echo.send(data, port, address);
      });
    });

    afterEach(async () => {
      await Promise.all(clients.splice(0).map((client) => client.close()));
      for (const close of closers.splice(0)) close();
      echo.close();
      server.kill("SIGTERM");
      if (server.exitCode === null) await once(server, "exit");
      rmSync(folder, { recursive: true, force: true });
    });

    async function startClient(port = serverPort): Promise<UdpLocal> {
      const client = await startUdpLocal({
        // On a busy machine a session could measure a long path and be renewed with other ports.
        lanes: 1,
        server: `127.0.0.1:${port}`,
        psk: new TextEncoder().encode("0123456789abcdef0123456789abcdef"),
        forwards: [{ listen: "127.0.0.1:0", target: `127.0.0.1:${echo.address().port}` }],
      });
      clients.push(client);
      await new Promise((done) => client.once("session-up", done));
      return client;
    }

    /** An application behind a client. The function sends a text until it comes back. */
    function application(
      client: UdpLocal,
      host = "127.0.0.1",
    ): (text: string, timeout?: number) => Promise<void> {
      const socket = createSocket(host.includes(":") ? "udp6" : "udp4");
      closers.push(() => socket.close());
      const heard = new Set<string>();
      socket.on("message", (data) => heard.add(data.toString()));
      const port = Number(/\d+$/.exec(client.address.forwards[0].listen)![0]);
      return (text, timeout = 5_000) =>
        vi.waitFor(
          () => {
            if (heard.has(text)) return;
            socket.send(text, port, host);
            throw new Error(`no answer to ${text}`);
          },
          { timeout, interval: 100 },
        );
    }

    const upInWorker = () => lines.filter(({ msg }) => msg === "session-up").map(({ worker }) => worker ?? 0);

    it("spreads sessions over its workers and sums their counters", async () => {
      const all = [];
      while (new Set(upInWorker()).size < WORKERS && all.length < 40) all.push(await startClient());
      expect(new Set(upInWorker())).toEqual(new Set([0, 1, 2]));
      await Promise.all(all.map((client, i) => application(client)(`client ${i}`)));
      await vi.waitUntil(
        () => lines.findLast(({ stats }) => stats !== undefined)?.stats?.sessions === all.length,
        {
          timeout: 5_000,
        },
      );
    });

    it.skipIf(process.platform !== "linux")("starts no thread for requests without the key", async () => {
      const threads = () => readdirSync(`/proc/${server.pid}/task`).length;
      const before = threads();
      for (let first = 0; first < 30; first++) {
        const socket = connect(serverPort, "127.0.0.1");
        const session = Uint8Array.of(first, ...new Uint8Array(15));
        const [nonce, mac] = [new Uint8Array(16).fill(first), new Uint8Array(32)];
        socket.write(
          encodeUpgradeRequest("a", BIND_PATH, true, {
            ...{ nonce, lane: 0, ticket: undefined, session, receipts: false, mac, resumeMac: mac },
          }),
        );
        expect((await once(socket, "data"))[0].toString()).toMatch(/^HTTP\/1.1 404 /);
        socket.destroy();
      }
      expect(threads()).toBe(before);
      const own = await startClient();
      await application(own)("the first session, in the thread that listens");
      expect(threads()).toBe(before);
    });

    it("resumes a session in its own worker, so that the target sees the same source port", async () => {
      const cuts = new Set<Socket>();
      const relay = createServer((near) => {
        const far = connect(serverPort, "127.0.0.1");
        for (const socket of [near, far]) {
          cuts.add(socket);
          socket
            .on("error", () => {})
            .on("close", () => {
              near.destroy();
              far.destroy();
            });
        }
        near.pipe(far).pipe(near);
      }).listen(0, "127.0.0.1");
      await once(relay, "listening");
      closers.push(() => relay.close());
      const { port } = relay.address() as { port: number };
      for (let i = 0; i < 8; i++) {
        const client = await startClient(port);
        const ask = application(client);
        await ask(`${i} before`);
        const resumed = new Promise((done) => client.once("session-resumed", done));
        for (const socket of cuts) socket.destroy();
        cuts.clear();
        await resumed;
        await ask(`${i} after`);
        expect(sources.get(`${i} after`)).toBe(sources.get(`${i} before`));
        await client.close();
      }
      expect(new Set(upInWorker()).size).toBeGreaterThan(1);
    });

    it("restarts a crashed worker: its sessions register again under new names, and those of the others continue", async () => {
      const asks: ReturnType<typeof application>[] = [];
      while (new Set(upInWorker()).size < WORKERS && asks.length < 40)
        asks.push(application(await startClient()));
      await Promise.all(asks.map((ask, i) => ask(`${i} before`)));
      writeFileSync(join(folder, "crash"), "");
      await vi.waitUntil(() => lines.some(({ msg }) => msg === "a worker crashed"), { timeout: 5_000 });
      await Promise.all(asks.map((ask, i) => ask(`${i} after`, 6_000)));
      const crashed = lines.find(({ msg }) => msg === "a worker crashed")?.worker;
      for (const [i, worker] of upInWorker().slice(0, asks.length).entries()) {
        if (worker === crashed) continue;
        expect(sources.get(`${i} after`)).toBe(sources.get(`${i} before`));
      }
      const names = lines.filter(({ msg }) => msg === "session-up").map(({ session }) => session);
      expect(names.length).toBeGreaterThan(asks.length);
      expect(new Set(names).size).toBe(names.length);
      expect(server.exitCode).toBe(null);
    });

    it.skipIf(process.platform !== "linux")(
      "closes connections handed over to a worker that fails to start, and the next worker serves the client",
      async () => {
        const sockets = () =>
          readdirSync(`/proc/${server.pid}/fd`).filter((fd) => {
            try {
              return readlinkSync(`/proc/${server.pid}/fd/${fd}`).startsWith("socket:");
            } catch {
              return false;
            }
          }).length;
        await application(await startClient())("the first");
        const before = sockets();
        writeFileSync(join(folder, "crash-at-start"), "");
        await application(await startClient())("the second");
        expect(lines.filter(({ msg }) => msg === "a worker crashed")).toHaveLength(2);
        expect(upInWorker()).toEqual([0, 0]);
        // The connection and the UDP socket of the second client.
        expect(sockets()).toBe(before + 2);
      },
    );

    it("serves a udp-local with two workers: a session each, answers for every source of both families, also through SOCKS5", async () => {
      const psk = join(folder, "psk");
      const local = spawn(
        process.execPath,
        [
          LOCAL_PROGRAM,
          ...["--server", `127.0.0.1:${serverPort}`, "--psk-file", psk, "--workers", "2"],
          ...["--listen", "[::]:0", "--forward", `[::]:0=127.0.0.1:${echo.address().port}`],
          ...["--log-format", "json"],
        ],
        { stdio: ["ignore", "ignore", "pipe"] },
      );
      closers.push(() => local.kill("SIGKILL"));
      const said: { msg?: string; ready?: string; socks5?: string; forwards?: { listen: string }[] }[] = [];
      createInterface({ input: local.stderr }).on("line", (line) => said.push(JSON.parse(line)));
      const ready = await vi.waitUntil(() => said.find((line) => line.ready !== undefined), {
        timeout: 10_000,
      });
      await vi.waitUntil(() => said.filter(({ msg }) => msg === "session up").length === 2, {
        timeout: 10_000,
      });
      const address = { ...ready, forwards: ready.forwards! } as unknown as UdpLocal["address"];
      const asks = Array.from({ length: 30 }, (_, i) =>
        application({ address } as UdpLocal, i % 2 === 0 ? "::1" : "127.0.0.1"),
      );
      await Promise.all(asks.map((ask, i) => ask(`source ${i}`)));
      expect(new Set(sources.values()).size).toBe(30);
      for (let i = 0; i < 6; i++) {
        const socket = connect(Number(/\d+$/.exec(ready.socks5!)![0]), i % 2 === 0 ? "::1" : "127.0.0.1");
        socket.write(Buffer.from([5, 1, 0]));
        expect([...(await once(socket, "data"))[0]]).toEqual([5, 0]);
        socket.write(Buffer.from([5, 3, 0, 1, 0, 0, 0, 0, 0, 0]));
        expect((await once(socket, "data"))[0][1]).toBe(0);
        socket.destroy();
      }
      local.kill("SIGTERM");
      expect(await once(local, "exit")).toEqual([0, null]);
    });
  },
);
