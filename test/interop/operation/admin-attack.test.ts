import { once } from "node:events";
import type { Socket } from "node:net";
import { connect, Server } from "node:net";
import { performance } from "node:perf_hooks";
import { setImmediate as nextTurn } from "node:timers/promises";
import { afterEach, describe, expect, it, vi } from "vitest";
import { Counters } from "../../../src/core/counters.ts";
import { spreadState } from "../../../src/core/session/spread-state.ts";
import type { FlowStatus } from "../../../src/host/stats/status.ts";
import { tunnelStats } from "../../../src/host/stats/tunnel-stats.ts";
import { AdminServer } from "../../../src/node/admin/admin-server.ts";
import { mutate, seededRandom } from "../../unit/random.ts";

const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const clean of cleanups.splice(0).reverse()) await clean();
});

/** An admin server of an endpoint with 10,000 flows, which it lists once `gate` lets it. */
async function open(gate: Promise<void> = Promise.resolve()) {
  const asked = { flows: 0 };
  let tell: (name: string, value: unknown) => void = () => {};
  const flows: FlowStatus = {
    flows: Array.from({ length: 10_000 }, (_, association) => ({
      ...{ session: "s1", association, local: "192.0.2.1:5", remote: "192.0.2.2:6", targets: 1, idleS: 3 },
    })),
    isCut: false,
  };
  const counters = new Counters();
  const logged: [level: string, fields: object, message: string][] = [];
  const logAt = (level: string) => (fields: object, message: string) =>
    void logged.push([level, fields, message]);
  const state = { sessions: 1, lanes: 1, associations: 10_000, contexts: 10_000, rttMs: 1 };
  const admin = await AdminServer.listen("127.0.0.1:0", undefined, {
    ...{ program: "udp-local", version: "1.2.3", address: {}, dashboard: undefined },
    stats: () => tunnelStats(counters, state, spreadState([])),
    status: async () => ({ sessions: [], sessionsLeftOut: 0 }),
    flows: async () => {
      asked.flows++;
      await gate;
      return flows;
    },
    reasonAgainst: () => undefined,
    onEvent: (listener) => {
      tell = listener;
      return () => {};
    },
    log: { debug: logAt("debug"), info: logAt("info"), warn: logAt("warn"), error: logAt("error") },
    handleListenerFailed: (error) => tell("listener-failed", error),
  });
  cleanups.push(() => admin.close());
  const port = Number(admin.address.split(":").at(-1));
  return { port, asked, logged, tell: (name: string, value: unknown) => tell(name, value) };
}

function attack(port: number): Socket {
  const socket = connect(port, "127.0.0.1");
  socket.on("error", () => {});
  cleanups.push(() => socket.destroy());
  return socket;
}

const closed = (socket: Socket) => new Promise<void>((done) => socket.once("close", () => done()));

async function expectService(port: number): Promise<void> {
  const answer = await fetch(`http://127.0.0.1:${port}/metrics`, { headers: { connection: "close" } });
  expect(answer.status).toBe(200);
  expect(await answer.text()).toContain("underpass_build_info");
}

describe("the admin server continues to serve", () => {
  it("after a client that asks 1,000 times at once and reads nothing, which gets one answer at most", async () => {
    const { port, asked } = await open();
    const socket = attack(port);
    socket.pause();
    await once(socket, "connect");
    socket.write("GET /flows HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".repeat(1_000));
    socket.resume();
    await closed(socket);
    expect(asked.flows).toBe(1);
    await expectService(port);
  });

  it("beside clients that read nothing of a long answer, which they share", async () => {
    let openGate: () => void = () => {};
    const gate = new Promise<void>((done) => {
      openGate = done;
    });
    const { port, asked } = await open(gate);
    const sockets = Array.from({ length: 40 }, () => attack(port));
    for (const socket of sockets) {
      socket.pause();
      socket.write("GET /flows HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    }
    await Promise.all(sockets.map((socket) => once(socket, "connect")));
    // The requests of all sockets arrive before this one.
    await expectService(port);
    openGate();
    await expectService(port);
    const answered = Promise.all(sockets.map((socket) => once(socket, "data")));
    for (const socket of sockets) socket.resume();
    await answered;
    expect(asked.flows).toBe(1);
  });

  it("while 64 connections say nothing, or part of a request: the oldest of them makes room", async () => {
    const { port } = await open();
    const sockets: Socket[] = [];
    for (let i = 0; i < 64; i++) {
      const socket = attack(port);
      sockets.push(socket);
      await once(socket, "connect");
      if (i % 2 === 0) socket.write("GET /status HTTP/1.1\r\nHo");
    }
    const first = closed(sockets[0].resume());
    await expectService(port);
    await first;
  });

  it("to a connection that is making its request, however fast others come, while the rest wait for answers", async () => {
    // A second does not pass unless the test says so.
    let ms = 0;
    const clock = vi.spyOn(performance, "now").mockImplementation(() => ms);
    cleanups.push(() => clock.mockRestore());
    let list = () => {};
    const { port } = await open(new Promise((done) => (list = done)));
    for (let i = 0; i < 63; i++) {
      const reader = attack(port);
      reader.write("GET /flows HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
      await once(reader, "connect");
    }
    const slow = attack(port);
    slow.write("GET /healthz HTTP/1.1\r\n");
    await once(slow, "connect");
    for (let i = 0; i < 5; i++) await closed(attack(port).resume());
    slow.write("Host: 127.0.0.1\r\n\r\n");
    const [answer] = await once(slow, "data");
    expect(String(answer)).toContain("200 OK");
    // It is without a request again: now for long enough to make room.
    const first = closed(slow.resume());
    ms = 1_000;
    const next = attack(port);
    await first;
    const [ofNext] = await Promise.all([
      once(next, "data"),
      next.write("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
    ]);
    expect(String(ofNext[0])).toContain("200 OK");
    list();
  });

  it("after errors when it accepts a connection", async () => {
    const listens = vi.spyOn(Server.prototype, "listen");
    cleanups.push(() => listens.mockRestore());
    const { port, logged } = await open();
    const server = listens.mock.contexts[0] as Server;
    for (const code of ["EMFILE", "ENFILE", "ENOBUFS"]) {
      server.emit("error", Object.assign(new Error(`accept ${code}`), { code }));
      expect(logged.pop()).toEqual(["warn", { error: `accept ${code}` }, "cannot accept"]);
      await expectService(port);
    }
  });

  it.each(["EINVAL", "EBADF", "ENOTSOCK"])(
    "on its connections after %s, when it accepts nothing more, which its log and /events report",
    async (code) => {
      const listens = vi.spyOn(Server.prototype, "listen");
      cleanups.push(() => listens.mockRestore());
      const { port, logged } = await open();
      const server = listens.mock.contexts[0] as Server;
      const events = attack(port);
      events.write("GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
      await once(events, "data");
      server.emit("error", Object.assign(new Error(`accept ${code}`), { code }));
      const error = `cannot listen: admin 127.0.0.1:${port}: accept ${code}`;
      expect(logged).toEqual([["error", { error }, "cannot accept"]]);
      let text = "";
      while (!text.includes('"ERR_LISTEN"}\n\n')) text += (await once(events, "data"))[0];
      expect(text).toContain(`event: listener-failed\ndata: {"message":"${error}","code":"ERR_LISTEN"}\n\n`);
      await closed(attack(port));
    },
  );

  it("after request lines and heads of any length, and after a client of /events that reads nothing", async () => {
    const { port, tell } = await open();
    const texts = [
      `GET /${"a".repeat(100_000)} HTTP/1.1\r\nHost: a\r\n\r\n`,
      `${"G".repeat(100_000)}`,
      `GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n${"X: y\r\n".repeat(20_000)}\r\n`,
      `POST /status HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\n${"z".repeat(200_000)}`,
      `GET /status HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nffffff\r\n${"z".repeat(200_000)}`,
    ];
    for (const text of texts) {
      const socket = attack(port);
      socket.write(text);
      await closed(socket.resume());
      await expectService(port);
    }
    const deaf = attack(port);
    deaf.write("GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    await once(deaf, "readable");
    let isClosed = false;
    void closed(deaf).then(() => {
      isClosed = true;
    });
    for (let i = 0; !isClosed; i++) {
      tell("session-up", { text: "x".repeat(100_000) });
      // A client that does not read notices a reset only when it writes.
      if (i % 10 === 0) deaf.write("x");
      await nextTurn();
    }
    await expectService(port);
  });

  it.each([1, 2])("after 400 requests that are cut, altered or repeated (seed %i)", async (seed) => {
    const { port } = await open();
    const random = seededRandom(seed);
    const good = ["/metrics", "/status", "/flows", "/events", "/", "/none"].map((path) =>
      Buffer.from(`GET ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\nConnection: keep-alive\r\n\r\n`),
    );
    for (let i = 0; i < 400; i++) {
      const socket = attack(port);
      const bytes = Buffer.concat(
        Array.from({ length: 1 + (random() % 3) }, () => {
          const one = good[random() % good.length];
          return random() % 3 === 0 ? one : mutate(random, one);
        }),
      );
      const at = random() % bytes.length;
      if (random() % 2 === 0) socket.resume();
      socket.write(bytes.subarray(0, at));
      if (random() % 2 === 0) await once(socket, "connect").catch(() => {});
      socket.write(bytes.subarray(at));
      const how = random() % 4;
      if (how === 0) socket.end();
      else if (how === 1) socket.destroy();
      else if (how === 2) socket.resetAndDestroy();
      if (i % 40 === 0) await expectService(port);
    }
    await expectService(port);
  });
});
