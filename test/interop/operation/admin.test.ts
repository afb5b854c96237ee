import { spawn, spawnSync } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import type { IncomingHttpHeaders } from "node:http";
import { get, request } from "node:http";
import type { Socket } from "node:net";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, describe, expect, it } from "vitest";
import type { AdminStatus } from "../../../src/node/admin/admin-server.ts";
import { AdminServer } from "../../../src/node/admin/admin-server.ts";
import type { UdpLocal } from "../../../src/node/handles.ts";
import { openTunnel, PSK, shown } from "../peers/admin-tunnel.ts";
import { describeWith } from "../peers/peer-program.ts";

const TOKEN = "a-token-of-enough-characters";
const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const clean of cleanups.splice(0).reverse()) await clean();
});

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

function ask(
  address: string,
  path: string,
  headers: Record<string, string> = {},
  method = "GET",
): Promise<Answer> {
  const target = address.startsWith("unix:")
    ? { socketPath: address.slice(5) }
    : { host: "127.0.0.1", port: Number(address.split(":").at(-1)) };
  return new Promise((done, failed) => {
    const asked = request({ ...target, path, headers, method, agent: false }, (response) => {
      let body = "";
      response.on("data", (part) => {
        body += part;
      });
      response.on("end", () => done({ status: response.statusCode!, headers: response.headers, body }));
      response.on("error", failed);
    });
    asked.on("error", failed);
    asked.end();
  });
}

/** A server, a client with a forward to an echo, and the admin server of each. */
async function open(token?: string, address = "127.0.0.1:0") {
  const { server, local } = await openTunnel(cleanups);
  const bytes = token === undefined ? undefined : Buffer.from(token);
  const admin = await AdminServer.listen(address, bytes, shown("udp-local", local));
  cleanups.push(() => admin.close());
  const ofServer = await AdminServer.listen("127.0.0.1:0", bytes, shown("udp-server", server));
  cleanups.push(() => ofServer.close());
  return { server, local, admin: admin.address, adminOfServer: ofServer.address };
}

/** Sends datagrams through the tunnel and waits for their answers. */
async function exchange(local: UdpLocal, count: number): Promise<void> {
  const socket = createSocket("udp4");
  socket.bind(0, "127.0.0.1");
  await once(socket, "listening");
  const port = Number(local.address.forwards[0].listen.split(":").at(-1));
  for (let i = 0; i < count; i++) {
    const answered = once(socket, "message");
    socket.send(Buffer.alloc(100 + i), port, "127.0.0.1");
    await answered;
  }
  socket.close();
}

async function untilUp(local: UdpLocal): Promise<void> {
  if (local.stats().sessions === 0) await once(local, "session-up");
}

function sample(text: string, name: string): number {
  const line = text.split("\n").find((one) => one.startsWith(`${name} `));
  return Number(line?.split(" ")[1]);
}

describeWith(["promtool"], "the metrics of --admin", () => {
  it("pass `promtool check metrics`", async () => {
    const { local, admin } = await open();
    await untilUp(local);
    await exchange(local, 1);
    const { body } = await ask(admin, "/metrics");
    const { status, stdout, stderr } = spawnSync("promtool", ["check", "metrics"], {
      input: body,
      encoding: "utf8",
    });
    expect({ status, stdout, stderr }).toEqual({ status: 0, stdout: "", stderr: "" });
  });
});

describe("the admin server", () => {
  it("gives fresh metrics at each scrape, in the formats of Prometheus and OpenMetrics", async () => {
    const { local, admin, adminOfServer } = await open();
    await untilUp(local);
    await exchange(local, 3);
    const text = await ask(admin, "/metrics");
    expect(text.headers["content-type"]).toMatch(/^text\/plain; version=0\.0\.4/);
    expect(sample(text.body, "underpass_sent_datagrams_total")).toBe(3);
    expect(text.body).toContain('underpass_dropped_datagrams_total{reason="age"} 0\n');
    expect(text.body).toMatch(/underpass_queue_delay_seconds_bucket\{lane="\d+",le="\+Inf"\} [1-9]/);
    const accept = { accept: "application/openmetrics-text; version=1.0.0,text/plain;q=0.5" };
    for (let expected = 3; expected < 5; expected++) {
      const open = await ask(admin, "/metrics", accept);
      expect(open.headers["content-type"]).toMatch(/^application\/openmetrics-text/);
      expect(open.body).toMatch(/# TYPE underpass_sent_datagrams counter\n/);
      expect(open.body.endsWith("# EOF\n")).toBe(true);
      expect(sample(open.body, "underpass_sent_datagrams_total")).toBe(expected);
      await exchange(local, 1);
    }
    const ofServer = await ask(adminOfServer, "/metrics");
    expect(sample(ofServer.body, "underpass_received_datagrams_total")).toBe(5);
  });

  it.each([undefined, TOKEN])(
    "lists flows, with addresses only if access is restricted: token %j",
    async (token) => {
      const { local, admin, adminOfServer } = await open(token);
      await untilUp(local);
      await exchange(local, 1);
      const headers: Record<string, string> = token === undefined ? {} : { authorization: `Bearer ${token}` };
      const target = local.address.forwards[0].target;
      for (const address of [admin, adminOfServer]) {
        const answer = JSON.parse((await ask(address, "/flows", headers)).body);
        expect(answer).toMatchObject({ isCut: false, hasAddresses: token !== undefined });
        expect(answer.rows).toHaveLength(1);
        const [session, association, source, remote, targets, idle] = answer.rows[0];
        expect([association, targets, idle]).toEqual([0, 1, 0]);
        expect(session === "").toBe(address === admin);
        expect(remote).toBe(token === undefined ? null : target);
        expect(source).toEqual(token === undefined ? null : expect.stringMatching(/^127\.0\.0\.1:\d+$/));
      }
      const { sessions } = JSON.parse((await ask(adminOfServer, "/status", headers)).body) as AdminStatus;
      expect(sessions[0].lanes[0].carrier).toBe("TCP");
    },
  );

  it("reports the session with its lanes and their carrier, and explains each reason", async () => {
    const { local, server, admin, adminOfServer } = await open();
    await untilUp(local);
    await exchange(local, 1);
    const { body, headers } = await ask(admin, "/status");
    expect(headers["content-type"]).toBe("application/json");
    const status = JSON.parse(body) as AdminStatus;
    expect(status).toMatchObject({
      program: "udp-local",
      version: "1.2.3",
      isReady: true,
      sessionsLeftOut: 0,
    });
    const [session] = status.sessions;
    expect(session).toMatchObject({ kind: "native", state: "up", associations: 1 });
    const up = session.lanes.filter(({ state }) => state === "up");
    expect(up).toHaveLength(local.stats().lanes);
    expect(up[0].carrier).toBe(server.address.listen[0]);
    const ofServer = JSON.parse((await ask(adminOfServer, "/status")).body) as AdminStatus;
    expect(ofServer.sessions[0].lanes).toHaveLength(server.stats().lanes);
    expect(body + JSON.stringify(ofServer)).not.toContain(PSK.toString());
  });

  it("is alive without a session but ready only with one", async () => {
    const { local: up, admin, server } = await open();
    await untilUp(up);
    expect(await ask(admin, "/readyz")).toMatchObject({ status: 200, body: "ready\n" });
    // once() would reject, because an "error" event comes first.
    const down = new Promise((done) => up.on("session-down", done));
    await server.close();
    await down;
    expect(await ask(admin, "/readyz")).toMatchObject({ status: 503, body: "no session\n" });
    expect(await ask(admin, "/healthz")).toMatchObject({ status: 200, body: "ok\n" });
  });

  it("sends events and statistics as they occur", async () => {
    const { local, admin, server } = await open();
    await untilUp(local);
    const port = Number(admin.split(":").at(-1));
    const asked = get({ host: "127.0.0.1", port, path: "/events", agent: false });
    const [response] = await once(asked, "response");
    expect(response.headers["content-type"]).toMatch(/^text\/event-stream/);
    response.on("error", () => {});
    const text = new Promise<string>((done) => {
      let all = "";
      response.on("data", (part: Buffer) => {
        all += part;
        if (all.includes("event: session-down\n")) done(all);
      });
    });
    const closing = server.close();
    expect(await text).toMatch(/^event: stats\ndata: \{.*\}\n\n/);
    asked.destroy();
    await closing;
  });

  it("requires the token for everything except liveness and readiness", async () => {
    const { admin } = await open(TOKEN);
    for (const authorization of [
      undefined,
      "Bearer wrong",
      `Basic ${TOKEN}`,
      `Bearer ${TOKEN}x`,
      "Bearer ",
    ]) {
      const answer = await ask(admin, "/metrics", authorization === undefined ? {} : { authorization });
      expect([answer.status, answer.headers["www-authenticate"]]).toEqual([401, "Bearer"]);
      expect(answer.body).not.toContain(TOKEN);
    }
    for (const path of ["/status", "/events", "/none"]) expect((await ask(admin, path)).status).toBe(401);
    const authorization = `Bearer ${TOKEN}`;
    expect((await ask(admin, "/metrics", { authorization, host: "metrics.example" })).status).toBe(200);
    expect((await ask(admin, "/healthz")).status).toBe(200);
  });

  it("refuses other host names, which protects it from DNS rebinding", async () => {
    const { admin } = await open();
    for (const host of [
      "evil.example",
      "evil.example:9464",
      "127.0.0.1.evil.example",
      "localhost.evil.example",
    ]) {
      expect((await ask(admin, "/status", { host })).status, host).toBe(403);
      expect((await ask(admin, "/healthz", { host })).status, host).toBe(403);
    }
    for (const host of ["127.0.0.1", "localhost:9464", "[::1]:9464", "192.0.2.1"]) {
      expect((await ask(admin, "/healthz", { host })).status, host).toBe(200);
    }
  });

  it("changes nothing: other methods are refused", async () => {
    const { admin } = await open();
    for (const method of ["POST", "PUT", "DELETE", "OPTIONS"]) {
      expect((await ask(admin, "/status", {}, method)).status, method).toBe(405);
    }
    expect(await ask(admin, "/status", {}, "HEAD")).toMatchObject({ status: 200, body: "" });
    expect((await ask(admin, "/../etc/passwd")).status).toBe(404);
  });

  it("drops clients that do not finish a request and keeps at most 64 connections", async () => {
    const { admin } = await open();
    const port = Number(admin.split(":").at(-1));
    const sockets: Socket[] = [];
    cleanups.push(() => sockets.forEach((socket) => void socket.destroy()));
    const closed: Promise<unknown>[] = [];
    for (let i = 0; i < 80; i++) {
      const socket = connect(port, "127.0.0.1");
      socket.on("error", () => {});
      sockets.push(socket);
      closed.push(once(socket, "close"));
      await once(socket, "connect");
      socket.write("GET /status HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ");
      socket.resume();
    }
    // Those above the bound close at once, the others at the deadline of a head.
    await Promise.all(closed);
    expect((await ask(admin, "/healthz")).status).toBe(200);
  });

  it("answers scrapes while datagrams flood the tunnel", async () => {
    const { local, admin } = await open();
    await untilUp(local);
    let isDone = false;
    const flood = (async () => {
      const socket = createSocket("udp4");
      const port = Number(local.address.forwards[0].listen.split(":").at(-1));
      while (!isDone) {
        for (let i = 0; i < 200; i++) socket.send(Buffer.alloc(1_000), port, "127.0.0.1");
        await new Promise(setImmediate);
      }
      socket.close();
    })();
    let before = -1;
    for (let i = 0; i < 20; i++) {
      const { status, body } = await ask(admin, "/metrics");
      expect(status).toBe(200);
      const sent = sample(body, "underpass_sent_datagrams_total");
      expect(sent).toBeGreaterThanOrEqual(before);
      before = sent;
      await sleep(20);
    }
    isDone = true;
    await flood;
    expect(before).toBeGreaterThan(0);
  });

  it("listens on a Unix socket that only its owner can open and removes it afterwards", async () => {
    const folder = mkdtempSync(join(tmpdir(), "underpass-admin-"));
    cleanups.push(() => rmSync(folder, { recursive: true, force: true }));
    const path = join(folder, "socket");
    const { admin } = await open(undefined, `unix:${path}`);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect((await ask(admin, "/healthz", { host: "any.name" })).status).toBe(200);
    for (const clean of cleanups.splice(1).reverse()) await clean();
    expect(existsSync(path)).toBe(false);
  });
});

describe("the programs", () => {
  const DIST = resolve(import.meta.dirname, "../../../dist/cli");
  const folder = () => {
    const path = mkdtempSync(join(tmpdir(), "underpass-admin-"));
    cleanups.push(() => rmSync(path, { recursive: true, force: true }));
    return path;
  };

  async function start(program: string, args: readonly string[]) {
    const child = spawn(process.execPath, [join(DIST, `${program}.js`), "--log-format", "json", ...args], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    cleanups.push(async () => {
      if (child.exitCode !== null) return;
      child.kill("SIGTERM");
      await once(child, "exit");
    });
    for await (const line of createInterface({ input: child.stderr })) {
      const ready = JSON.parse(line) as { ready?: string; admin?: string; listen?: string[] };
      if (ready.ready === program) return ready;
    }
    throw new Error(`${program} ended`);
  }

  const run = (program: string, args: readonly string[]) =>
    spawnSync(process.execPath, [join(DIST, `${program}.js`), ...args], {
      encoding: "utf8",
      timeout: 60_000,
    });

  it("show their state with `status` and `top`, even with several threads", async () => {
    const at = folder();
    const [key, token] = [join(at, "psk"), join(at, "token")];
    writeFileSync(key, PSK, { mode: 0o600 });
    writeFileSync(token, `${TOKEN}\n`, { mode: 0o600 });
    const secure = ["--admin-token-file", token];
    const { admin, listen } = await start("udp-server", [
      ...[
        "--listen",
        "127.0.0.1:0",
        "--psk-file",
        key,
        "--workers",
        "2",
        "--admin",
        "127.0.0.1:0",
        ...secure,
      ],
    ]);
    const socket = `unix:${join(at, "local")}`;
    await start("udp-local", [
      "--server",
      listen![0],
      "--psk-file",
      key,
      "--listen",
      "127.0.0.1:0",
      "--admin",
      socket,
    ]);
    while ((await ask(socket, "/readyz")).status !== 200) await sleep(20);
    const text = run("udp-local", ["status", "--admin", socket]);
    expect(text.stderr).toBe("");
    expect(text.stdout).toMatch(/^udp-local \d+\.\d+\.\d+, ready, up \d+ s\nsessions 1, lanes \d/);
    expect(text.stdout).toContain(`lane 0: up`);
    expect(text.stdout).toContain(listen![0]);
    const status = run("udp-server", ["status", "--admin", admin!, ...secure, "--json"]);
    const { sessions } = JSON.parse(status.stdout) as AdminStatus;
    expect(sessions).toHaveLength(1);
    const refused = run("udp-server", ["status", "--admin", admin!]);
    expect([refused.status, refused.stderr]).toEqual([1, expect.stringMatching(/401 .*token/)]);
    const top = spawn(process.execPath, [join(DIST, "udp-local.js"), "top", "--admin", socket]);
    cleanups.push(() => top.kill());
    for await (const line of createInterface({ input: top.stdout })) {
      if (/^in \d+\/s .*, out \d+\/s/.test(line)) break;
    }
  });

  it.each([
    [["--admin", "0.0.0.0:0"], /--admin: 0\.0\.0\.0:0 is not loopback: also give --admin-token-file/],
    [["--admin", "[::]:0"], /--admin: .* is not loopback/],
    [["--admin", "example.com:80"], /--admin: expected IP:PORT or unix:\/path, got "example\.com:80"/],
    [["--admin-token-file", "/does/not/exist"], /\/does\/not\/exist/],
    [["status"], /--admin: expected the address/],
  ])("refuse %j with 2", (args, pattern) => {
    const { status, stderr } = run("udp-server", args);
    expect(stderr.trimEnd().split("\n")).toHaveLength(1);
    expect(stderr).toMatch(pattern);
    expect(status).toBe(2);
  });

  it("report in one line that nothing answers or that the address is in use", async () => {
    const nobody = run("udp-local", ["status", "--admin", "127.0.0.1:1"]);
    expect([nobody.status, nobody.stderr]).toEqual([
      1,
      "udp-local: cannot connect: admin 127.0.0.1:1: connection refused (ECONNREFUSED)\n",
    ]);
    const { admin } = await open();
    const port = Number(admin.split(":").at(-1));
    const busy = run("udp-server", ["--listen", "127.0.0.1:0", "--admin", `127.0.0.1:${port}`]);
    expect([busy.status, busy.stderr]).toEqual([
      1,
      expect.stringMatching(/admin 127\.0\.0\.1:\d+: address already in use \(EADDRINUSE\)\n$/),
    ]);
    const nowhere = run("udp-server", ["--listen", "127.0.0.1:0", "--admin", "unix:/no/folder/admin"]);
    expect([nowhere.status, nowhere.stderr]).toEqual([
      1,
      expect.stringMatching(/admin unix:\/no\/folder\/admin: no such file or directory \(ENOENT\)\n$/),
    ]);
  });
});
