import { spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { EventEmitter, once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as wait } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import type { UdpLocal } from "../../../src/node/handles.ts";
import { hasNativeIo } from "../../../src/node/io/io.ts";
import { startUdpLocal } from "../../../src/node/udp-local.ts";

const SERVER_PROGRAM = resolve(import.meta.dirname, "../../../dist/cli/udp-server.js");
const KEYS = {
  alice: { key: "the key of alice" },
  bob: { key: "the key of bob.." },
};
/** A session ends within this time after a reload that removes its key. */
const END_MS = 1_000;
/** Long enough for a client to make several attempts to reconnect. */
const RETRIES_MS = 1_500;
/** Answers that take a second or more at the limited rate of 200 datagrams a second. */
const RATED = 250;

interface LogLine {
  readonly msg?: string;
  readonly ready?: string;
  readonly listen?: readonly string[];
  readonly error?: string;
  readonly keys?: number;
}

/** With plain I/O, a server has one thread, whatever it is asked for. */
const hasThreads = hasNativeIo(undefined);

describe.each([1, 3])("a udp-server with a key file and %i threads", (workers) => {
  const folder = mkdtempSync(join(tmpdir(), "underpass-keys-"));
  const file = join(folder, "keys.json");
  const echo = createSocket("udp4");
  const lines: LogLine[] = [];
  const logged = new EventEmitter();
  let address = "";
  let child: ReturnType<typeof spawn>;
  const psk = join(folder, "psk");

  const write = (keys: object) => writeFileSync(file, JSON.stringify(keys), { mode: 0o600 });

  /** The first wanted log line after the first `count`. */
  async function lineAfter(count: number, isWanted: (line: LogLine) => boolean): Promise<LogLine> {
    for (;;) {
      const found = lines.slice(count).find(isWanted);
      if (found !== undefined) return found;
      await once(logged, "line");
    }
  }

  beforeAll(async () => {
    echo.on("message", (data, { port }) => echo.send(data, port, "127.0.0.1"));
    echo.bind(0, "127.0.0.1");
    await once(echo, "listening");
    write(KEYS);
    writeFileSync(psk, "the key of everybody", { mode: 0o600 });
    const options = ["--listen", "127.0.0.1:0", "--allow", "127.0.0.1/32", "--workers", `${workers}`];
    const argv = [SERVER_PROGRAM, ...options, "--keys", file, "--psk-file", psk, "--log-format", "json"];
    child = spawn(process.execPath, argv, { stdio: ["ignore", "ignore", "pipe"] });
    createInterface({ input: child.stderr! }).on("line", (line) => {
      lines.push(JSON.parse(line));
      logged.emit("line");
    });
    address = (await lineAfter(0, ({ ready }) => ready !== undefined)).listen![0];
  });

  afterAll(async () => {
    child.kill("SIGTERM");
    await once(child, "exit");
    echo.close();
    rmSync(folder, { recursive: true, force: true });
  });

  /** Sends the signal and waits for the program's log line about it. */
  async function reload(): Promise<LogLine> {
    const before = lines.length;
    child.kill("SIGHUP");
    return lineAfter(before, ({ msg = "" }) => /^(reloaded|cannot reload)/.test(msg));
  }

  async function startLocal(key: string, keyName?: string): Promise<UdpLocal> {
    const local = await startUdpLocal({
      ...{ server: address, psk: Buffer.from(key), lanes: 2 },
      ...(keyName === undefined ? {} : { keyName }),
      forwards: [{ listen: "127.0.0.1:0", target: `127.0.0.1:${echo.address().port}` }],
    });
    onTestFinished(() => local.close());
    return local;
  }

  async function startUp(key: string, keyName?: string): Promise<UdpLocal> {
    const local = await startLocal(key, keyName);
    await once(local, "session-up");
    return local;
  }

  /** The first error that a client reports. */
  async function complaintOf(key: string, keyName?: string): Promise<string> {
    const local = await startLocal(key, keyName);
    const [error] = await once(local, "error").catch((cause: Error) => [cause]);
    return (error as Error).message;
  }

  /** Sends numbered datagrams, one a millisecond. @returns the numbers that came back, and how many were sent */
  function flow(local: UdpLocal): { readonly answered: Set<number>; sent: number; stop(): Promise<void> } {
    const app = createSocket("udp4");
    const port = Number(local.address.forwards[0].listen.split(":")[1]);
    const answered = new Set<number>();
    app.on("message", (data) => answered.add(data.readUInt32BE(0)));
    const timer = setInterval(() => {
      const data = Buffer.alloc(200);
      data.writeUInt32BE(result.sent++);
      app.send(data, port, "127.0.0.1");
    }, 1);
    const result = {
      answered,
      sent: 0,
      stop: async () => {
        clearInterval(timer);
        await expect
          .poll(() => answered.size, { timeout: 800 })
          .toBe(result.sent)
          .catch(() => {});
        app.close();
      },
    };
    return result;
  }

  function answersOf(flows: readonly { readonly answered: ReadonlySet<number> }[]): number {
    return flows.reduce((total, { answered }) => total + answered.size, 0);
  }

  it("serves clients with names, without names, and with the common key", async () => {
    for (const [key, name] of [
      [KEYS.alice.key, "alice"],
      [KEYS.bob.key, undefined],
      ["the key of everybody", undefined],
      ["the key of everybody", "somebody"],
    ]) {
      const local = await startUp(key!, name);
      await local.close();
    }
  });

  it.each([
    ["nobody's key is this", "alice", /another key/],
    ["the key of alice", "bob", /it knows this key by another name/],
    ["the key of alice", "carol", /it knows this key by another name/],
  ])("refuses the key %j of %s", async (key, name, message) => {
    expect(await complaintOf(key, name)).toMatch(message);
  });

  it("loses no datagram of a key that stays while others come and go under load", async () => {
    const local = await startUp(KEYS.alice.key, "alice");
    const datagrams = flow(local);
    for (let round = 0; round < 20 || datagrams.sent < 200; round++) {
      const others = Object.fromEntries(
        Array.from({ length: 200 }, (_, i) => [`k${round}-${i}`, { key: `key ${i} of round ${round}` }]),
      );
      write({ ...others, ...KEYS });
      expect((await reload()).keys).toBe(202);
    }
    await datagrams.stop();
    expect(datagrams.answered.size).toBe(datagrams.sent);
    write(KEYS);
    await reload();
  });

  it("ends the session of a removed key for good and no other session", async () => {
    const gone = await startUp(KEYS.bob.key, "bob");
    const stays = await startUp(KEYS.alice.key, "alice");
    const events: string[] = [];
    for (const name of ["session-down", "session-up", "session-resumed"]) {
      gone.on(name, () => events.push(name));
      stays.on(name, () => events.push(`alice: ${name}`));
    }
    const datagrams = flow(gone);
    await expect.poll(() => datagrams.answered.size).toBeGreaterThan(0);
    write({ alice: KEYS.alice });
    const at = performance.now();
    await reload();
    await expect.poll(() => events).toEqual(["session-down"]);
    expect(performance.now() - at).toBeLessThan(END_MS);
    // Earlier answers may still be in flight to the application.
    const { sent } = datagrams;
    await wait(RETRIES_MS);
    expect(events).toEqual(["session-down"]);
    expect(datagrams.sent).toBeGreaterThan(sent + 10);
    expect([...datagrams.answered].filter((number) => number >= sent)).toEqual([]);
    await datagrams.stop();
    write(KEYS);
    await reload();
    await expect.poll(() => events, { timeout: 10_000 }).toEqual(["session-down", "session-up"]);
  });

  it("refuses an expired key, and ends its session at its expiry", async () => {
    const expires = Math.floor(Date.now() / 1000) + 2;
    write({ alice: { ...KEYS.alice, expires } });
    await reload();
    const local = await startUp(KEYS.alice.key, "alice");
    const errors: string[] = [];
    local.on("error", (error: Error) => errors.push(error.message));
    await once(local, "session-down").catch(() => {});
    await expect.poll(() => errors.join("; "), { timeout: 10_000 }).toContain("it has expired there");
    expect(Date.now() / 1000).toBeGreaterThanOrEqual(expires);
    write(KEYS);
    await reload();
  });

  it("keeps the old keys if the file is invalid, and names the place of the error in one line", async () => {
    const local = await startUp(KEYS.alice.key, "alice");
    const downs: string[] = [];
    local.on("session-down", () => downs.push("down"));
    writeFileSync(file, `{\n  "alice": { "key": "the key of alice" },\n  "bob": { "key": "short" }\n}`);
    const { msg, error } = await reload();
    expect(msg).toMatch(/^cannot reload/);
    expect(error).toMatch(/keys\.json:3:19: bob\.key: expected a text of at least 16 bytes/);
    expect(error).not.toContain("short");
    rmSync(file);
    expect((await reload()).error).toContain("ENOENT");
    await (await startUp(KEYS.bob.key, "bob")).close();
    expect(downs).toEqual([]);
    write(KEYS);
    await reload();
  });

  it("limits associations and rate over all sessions of a key", async () => {
    write({ ...KEYS, bob: { ...KEYS.bob, "max-associations": 4, "datagrams-per-second": 200 } });
    await reload();
    const locals = [await startUp(KEYS.bob.key, "bob"), await startUp(KEYS.bob.key, "bob")];
    const startedAt = performance.now();
    const flows = locals.flatMap((local) => Array.from({ length: 4 }, () => flow(local)));
    await expect.poll(() => answersOf(flows), { timeout: 10_000 }).toBeGreaterThan(RATED);
    const stopped = flows.map(({ stop }) => stop());
    const seconds = (performance.now() - startedAt) / 1000;
    await Promise.all(stopped);
    const served = flows.filter(({ answered }) => answered.size > 0);
    expect(served).toHaveLength(4);
    const sum = answersOf(served);
    // Datagrams in flight at the stop count when they arrive.
    expect(sum).toBeLessThanOrEqual(200 * (seconds + 0.5) + 50);
    write(KEYS);
    await reload();
  });

  it("limits the rate over all sessions that a key had before it got the limit", async () => {
    const locals: UdpLocal[] = [];
    for (let i = 0; i < 3; i++) locals.push(await startUp(KEYS.bob.key, "bob"));
    write({ ...KEYS, bob: { ...KEYS.bob, "datagrams-per-second": 200 } });
    const moved: string[] = [];
    for (const local of locals) local.on("session-renewed", ({ reason }) => moved.push(reason));
    await reload();
    const others = hasThreads ? workers - 1 : 0;
    await expect.poll(() => moved, { timeout: 5_000 }).toEqual(Array(others).fill("moved"));
    const startedAt = performance.now();
    const flows = locals.map(flow);
    await expect.poll(() => answersOf(flows), { timeout: 10_000 }).toBeGreaterThan(RATED);
    const stopped = flows.map(({ stop }) => stop());
    const seconds = (performance.now() - startedAt) / 1000;
    await Promise.all(stopped);
    const sum = answersOf(flows);
    expect(sum).toBeLessThanOrEqual(200 * (seconds + 0.5) + 50);
    write(KEYS);
    await reload();
  });
});
