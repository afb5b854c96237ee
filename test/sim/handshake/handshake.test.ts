import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Transcript } from "../../../src/core/handshakes/credentials.ts";
import { requestMac, resumeMac } from "../../../src/core/handshakes/credentials.ts";
import { HeadBuffer } from "../../../src/core/handshakes/head-buffer.ts";
import type { Verdict } from "../../../src/core/server/admission/handshake.ts";
import { Handshake } from "../../../src/core/server/admission/handshake.ts";
import type { TunnelServer } from "../../../src/core/server/server.ts";
import type { ServerOutput } from "../../../src/core/server/server-output.ts";
import { decodeHead, findHeadEnd } from "../../../src/wire/http/http-head.ts";
import type { ExtensionRequest, ShownTicket } from "../../../src/wire/http/upgrade.ts";
import {
  BIND_PATH,
  decodeUpgradeResponse,
  encodeRefusal,
  encodeUpgradeRequest,
} from "../../../src/wire/http/upgrade.ts";
import { Network, seededCryptography } from "../network.ts";

const KEY = new TextEncoder().encode("sixteen byte key");
const OTHER_KEY = new TextEncoder().encode("another sixteen byte key");
const WORKERS = { index: 0, count: 4 };
const crypto = seededCryptography(7);

/** A server with four workers and no client. */
function workerServer(index = 0): TunnelServer {
  return new Network({ server: { psk: KEY, worker: { ...WORKERS, index } } }).server;
}

/** The hello of a client with `psk`. */
function extensionOf(psk: Uint8Array | undefined, fields: Partial<Transcript> = {}): ExtensionRequest {
  const transcript = { nonce: crypto.random(16), lane: 0, ticket: undefined, session: undefined, ...fields };
  return {
    ...transcript,
    receipts: false,
    mac: psk === undefined ? undefined : requestMac(crypto, psk, transcript),
    resumeMac: fields.session === undefined ? undefined : resumeMac(crypto, KEY, transcript),
  };
}

const encode = (extension: ExtensionRequest) => encodeUpgradeRequest("a.test:1", BIND_PATH, true, extension);
const requestOf = (psk: Uint8Array | undefined, fields?: Partial<Transcript>) =>
  encode(extensionOf(psk, fields));

function outputsOf(server: TunnelServer): ServerOutput[] {
  const outputs: ServerOutput[] = [];
  for (let output = server.pollOutput(); output !== undefined; output = server.pollOutput())
    outputs.push(output);
  return outputs;
}

/** Sends a request on a connection, or on a new one. @returns the server's answer */
function ask(
  server: TunnelServer,
  request: Uint8Array,
  now = 1_000,
  connection = server.handleAccept(now),
): string {
  server.handleStream(now, connection, request, 0, request.length);
  const answer = new TextDecoder().decode(server.pollTransmit(now, connection));
  server.handleTransmitted(connection);
  return answer;
}

function send(server: TunnelServer, request: Uint8Array): ServerOutput[] {
  ask(server, request);
  return outputsOf(server);
}

function decodeAnswer(answer: string) {
  const bytes = new TextEncoder().encode(answer);
  return decodeUpgradeResponse(decodeHead(bytes, findHeadEnd(bytes, 0, bytes.length))!)!;
}

/** A ticket that a server issues to a client with the key. */
function ticketFrom(server: TunnelServer, now = 1_000): ShownTicket {
  return { bytes: decodeAnswer(ask(server, requestOf(KEY), now)).challenge!.ticket, age: 0 };
}

describe("a server with a key", () => {
  it("challenges an unknown client, and accepts its answer on any connection", () => {
    const { server } = new Network({ server: { psk: KEY } });
    const ticket = ticketFrom(server);
    expect(ask(server, requestOf(KEY, { ticket }))).toMatch(/^HTTP\/1.1 101 /);
    const connection = server.handleAccept(1_000);
    const answer = ask(server, requestOf(KEY), 1_000, connection);
    expect(answer).toMatch(/^HTTP\/1.1 401 /);
    const { challenge } = decodeAnswer(answer);
    const second = requestOf(KEY, { ticket: { bytes: challenge!.ticket, age: 0 } });
    expect(ask(server, second, 1_000, connection)).toMatch(/^HTTP\/1.1 101 /);
    expect(server.counters.refused.challenged).toBe(2);
  });

  it("reports that a request was changed on the way only to a client with the key", () => {
    const { server } = new Network({ server: { psk: KEY } });
    const changes: readonly ((text: string) => string)[] = [
      (text) => text.replace(BIND_PATH, "/other/place"),
      (text) => text.replace("Upgrade: connect-udp\r\n", ""),
      (text) => text.replace("Connection: Upgrade\r\n", "Connection: close\r\n"),
      (text) => text.replace(" HTTP/1.1", " HTTP/1.0"),
    ];
    for (const change of changes) {
      const changed = (psk: Uint8Array | undefined) =>
        ask(server, new TextEncoder().encode(change(new TextDecoder().decode(requestOf(psk)))));
      expect(changed(KEY)).toMatch(/^HTTP\/1.1 400 /);
      expect(changed(OTHER_KEY)).toMatch(/^HTTP\/1.1 404 /);
      expect(changed(undefined)).toMatch(/^HTTP\/1.1 404 /);
    }
    expect(server.counters.refused.not_upgrade).toBe(3 * changes.length);
  });

  it("answers several clients whose requests a proxy sends over one connection", () => {
    const { server } = new Network({ server: { psk: KEY } });
    const connection = server.handleAccept(1_000);
    for (let client = 0; client < 5; client++) {
      expect(ask(server, requestOf(KEY), 1_000, connection)).toMatch(/^HTTP\/1.1 401 /);
    }
  });

  it("closes a connection with its 32nd challenge, so a recording that is sent over and over leaves at most 32 answers unread", () => {
    const { server } = new Network({ server: { psk: KEY } });
    const request = requestOf(KEY);
    const flood = new Uint8Array(1_000 * request.length);
    for (let i = 0; i < 1_000; i++) flood.set(request, i * request.length);
    const connection = server.handleAccept(1_000);
    const answers = ask(server, flood, 1_000, connection).split("HTTP/1.1 ").slice(1);
    expect(answers).toHaveLength(32);
    expect(answers.filter((answer) => answer.includes("Connection: close"))).toEqual([answers[31]]);
    expect(outputsOf(server)).toMatchObject([
      { kind: "close", connection, refusal: { reason: "challenged" } },
    ]);
    expect(server.counters.refused.challenged).toBe(32);
    // A client that shares the connection with it uses the ticket on another.
    const ticket = { bytes: decodeAnswer(`HTTP/1.1 ${answers[31]}`).challenge!.ticket, age: 0 };
    expect(ask(server, requestOf(KEY, { ticket }))).toMatch(/^HTTP\/1.1 101 /);
  });

  it("accepts a ticket whose age is right to within 30 s, and challenges the client otherwise", () => {
    const { server } = new Network({ server: { psk: KEY } });
    const { bytes } = ticketFrom(server);
    const week = 7 * 86_400_000;
    const statusAt = (now: number, age: number) =>
      decodeAnswer(ask(server, requestOf(KEY, { ticket: { bytes, age } }), now)).status;
    expect(statusAt(1_000 + week, week)).toBe(101);
    expect(statusAt(1_000 + week, week - 30_000)).toBe(101);
    expect(statusAt(1_000 + week, week + 30_000)).toBe(101);
    expect(statusAt(1_000 + week, week - 30_001)).toBe(401);
    expect(statusAt(1_000 + week, week + 30_001)).toBe(401);
  });

  it("accepts no ticket of another process, no altered ticket, and none of another length", () => {
    const { server } = new Network({ server: { psk: KEY } });
    const other = new Network({ server: { psk: KEY, crypto: seededCryptography(5) } }).server;
    const { bytes } = ticketFrom(server);
    const statusOf = (ticket: Uint8Array) =>
      decodeAnswer(ask(server, requestOf(KEY, { ticket: { bytes: ticket, age: 0 } }))).status;
    expect(statusOf(ticketFrom(other).bytes)).toBe(401);
    for (let at = 0; at < bytes.length; at++) {
      expect(statusOf(bytes.map((byte, i) => (i === at ? byte ^ 1 : byte)))).toBe(401);
    }
    expect(statusOf(bytes.slice(0, 16))).toBe(401);
    expect(statusOf(Uint8Array.of(...bytes, 0))).toBe(401);
    expect(statusOf(bytes)).toBe(101);
  });

  it("accepts no request twice, however requests are recorded, spliced and replayed, even after a restart", () => {
    /** An earlier request, counted back from the last one. */
    const recorded = fc.nat(5);
    const steps = fc.array(
      fc.oneof(
        fc.record({ kind: fc.constant("ask" as const), lane: fc.nat(3) }),
        fc.record({ kind: fc.constant("wait" as const), ms: fc.oneof(fc.nat(1_000), fc.nat(60_000)) }),
        fc.record({ kind: fc.constant("client-sleeps" as const), ms: fc.nat(60_000) }),
        fc.record({ kind: fc.constant("client-runs-fast" as const), ms: fc.nat(30_000) }),
        fc.record({ kind: fc.constant("restart" as const), clock: fc.nat(1_000_000) }),
        fc.record({ kind: fc.constant("replay" as const), of: recorded }),
        fc.record({
          kind: fc.constant("splice" as const),
          nonce: recorded,
          ticket: recorded,
          mac: recorded,
          late: fc.integer({ min: -40_000, max: 40_000 }),
        }),
      ),
      { minLength: 20, maxLength: 80, size: "max" },
    );
    const counts = { accepted: 0, replayed: 0, challenged: 0 };
    fc.assert(
      fc.property(steps, fc.nat(1_000_000), (all, clockOfClient) => {
        let starts = 0;
        const start = () =>
          new Handshake({ psk: KEY, crypto: seededCryptography(1_000 + starts++), worker: undefined });
        let server = start();
        let now = 5_000;
        let clientNow = clockOfClient;
        let ticket: { bytes: Uint8Array; receivedAt: number } | undefined;
        const requests: ExtensionRequest[] = [];
        const accepted = new Set<string>();
        const judge = (extension: ExtensionRequest): Verdict => {
          const head = new HeadBuffer();
          const bytes = encode(extension);
          head.take(bytes, 0, bytes.length);
          const verdict = server.judge(now, head);
          if (verdict.kind === "challenge") counts.challenged++;
          if (verdict.kind === "refuse" && verdict.reason === "replay") counts.replayed++;
          if (verdict.kind === "lane") {
            counts.accepted++;
            const text = new TextDecoder().decode(bytes);
            expect(accepted).not.toContain(text);
            accepted.add(text);
          }
          return verdict;
        };
        const askOnce = (lane: number): Verdict => {
          const age = ticket === undefined ? 0 : clientNow - ticket.receivedAt;
          const extension = extensionOf(KEY, { lane, ticket: ticket && { bytes: ticket.bytes, age } });
          requests.push(extension);
          return judge(extension);
        };
        for (const step of all) {
          if (step.kind === "wait") {
            now += step.ms;
            clientNow += step.ms;
          } else if (step.kind === "client-sleeps") now += step.ms;
          else if (step.kind === "client-runs-fast") clientNow += step.ms;
          else if (step.kind === "restart") {
            server = start();
            now = step.clock;
          } else if (step.kind === "ask") {
            const verdict = askOnce(step.lane);
            if (verdict.kind !== "challenge") expect(verdict.kind).toBe("lane");
            else {
              ticket = { bytes: verdict.challenge.ticket, receivedAt: clientNow };
              // An honest client gets in at its second attempt, whatever its clock says.
              expect(askOnce(step.lane).kind).toBe("lane");
            }
          } else if (requests.length > 0) {
            const pick = (index: number) => requests[requests.length - 1 - (index % requests.length)];
            if (step.kind === "replay") judge(pick(step.of));
            else {
              const shown = pick(step.ticket).ticket;
              judge({
                ...pick(step.nonce),
                ticket: shown && { ...shown, age: Math.max(0, shown.age + step.late) },
                mac: pick(step.mac).mac,
              });
            }
          }
        }
      }),
      { seed: 93, numRuns: 500 },
    );
    for (const count of Object.values(counts)) expect(count).toBeGreaterThan(200);
  });

  it("accepts at most 65,536 requests a minute, and answers 503 to the others", () => {
    // Cheap, because the test signs 65,536 requests.
    const sum = (data: Uint8Array) => data.reduce((total, byte) => Math.imul(total, 31) + byte, 7);
    const cheap = {
      ...crypto,
      hmac: (_: Uint8Array, data: Uint8Array) => new Uint8Array(32).fill(sum(data)),
    };
    const handshake = new Handshake({ psk: KEY, crypto: cheap, worker: undefined });
    const judge = (now: number, ticket: ShownTicket | undefined) => {
      const fields = { nonce: crypto.random(16), lane: 0, ticket, session: undefined };
      const mac = requestMac(cheap, KEY, fields);
      const request = encode({ ...fields, receipts: false, mac, resumeMac: undefined });
      const head = new HeadBuffer();
      head.take(request, 0, request.length);
      return handshake.judge(now, head);
    };
    const verdict = judge(0, undefined);
    const bytes = verdict.kind === "challenge" ? verdict.challenge.ticket : new Uint8Array(0);
    const kinds = new Set<string>();
    for (let i = 0; i < 65_536; i++) kinds.add(judge(0, { bytes, age: 0 }).kind);
    expect([...kinds]).toEqual(["lane"]);
    const full = { kind: "refuse", reason: "nonce_limit", response: encodeRefusal(503, undefined) };
    expect(judge(0, { bytes, age: 0 })).toMatchObject(full);
    expect(judge(60_000, { bytes, age: 60_000 }).kind).toBe("lane");
  });

  it("gives a stranger the same answer for every error, and reports the reason only in its own output", () => {
    const { server } = new Network({ server: { psk: KEY } });
    const wrong = requestOf(OTHER_KEY);
    const strangers = {
      "wrong MAC: the client has another key": wrong,
      "no MAC: the client has no key": requestOf(undefined),
      "RFC 9298 without Underpass, which a server with a key does not serve": encodeUpgradeRequest(
        ...(["a", "/.well-known/masque/udp/192.0.2.1/53/", false, undefined] as const),
      ),
      "GET / HTTP/1.1; no Upgrade": new TextEncoder().encode("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    };
    for (const [detail, request] of Object.entries(strangers)) {
      expect(ask(server, request)).toBe(new TextDecoder().decode(encodeRefusal(404, undefined)));
      expect(outputsOf(server)).toMatchObject([{ kind: "close", refusal: { detail } }]);
    }
  });
});

describe("a server without a key", () => {
  it("accepts a request at once, as it needs no proof", () => {
    const { server } = new Network();
    const request = requestOf(undefined);
    expect(ask(server, request)).toMatch(/^HTTP\/1.1 101 /);
    expect(server.counters.refused.challenged).toBe(0);
  });
});

describe("a server of several workers", () => {
  it("hands over no connection for requests without the key, whatever session, nonce and lane they name", () => {
    const server = workerServer();
    const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
    const unproven = fc.record({
      psk: fc.constantFrom(undefined, OTHER_KEY),
      nonce: bytes(16),
      lane: fc.nat(255),
      session: fc.option(bytes(16), { nil: undefined }),
      ticket: fc.option(fc.record({ bytes: bytes(24), age: fc.nat() }), { nil: undefined }),
    });
    fc.assert(
      fc.property(unproven, ({ psk, ...fields }) => {
        const kinds = send(server, requestOf(psk, fields)).map(({ kind }) => kind);
        expect(kinds).toEqual(["close"]);
      }),
      { seed: 91, numRuns: 500 },
    );
    expect(server.counters.refused.bad_credentials).toBe(500);
  });

  it("hands over no connection for a request that is outdated or was seen before", () => {
    const server = workerServer();
    const session = Uint8Array.of(1, ...crypto.random(15));
    expect(send(server, requestOf(KEY, { session }))).toEqual([]);
    const request = requestOf(KEY, { session, ticket: ticketFrom(server) });
    expect(send(server, request)).toMatchObject([{ kind: "hand-over", worker: 1 }]);
    expect(send(server, request)).toMatchObject([{ kind: "close" }]);
    expect(server.counters.refused.replay).toBe(1);
  });

  it("closes a connection without a proof at its first deadline, even after a challenge", () => {
    const server = workerServer();
    const connection = server.handleAccept(1_000);
    expect(ask(server, requestOf(KEY), 3_000, connection)).toMatch(/^HTTP\/1.1 401 /);
    expect(server.halfOpenCount).toBe(1);
    for (let now = 3_000; now < 6_000; now += 250) server.handleTimeout(now);
    expect(outputsOf(server)).toEqual([]);
    server.handleTimeout(6_000);
    expect(outputsOf(server)).toMatchObject([{ kind: "close", connection }]);
    expect(server.halfOpenCount).toBe(0);
  });

  it("hands over a proven connection with its request and the bytes after it, and keeps nothing of it", () => {
    const server = workerServer();
    const ticket = ticketFrom(server);
    const halfOpen = server.halfOpenCount;
    const request = requestOf(KEY, { ticket, session: Uint8Array.of(6, ...crypto.random(15)) });
    const outputs = send(server, Uint8Array.of(...request, 1, 2, 3));
    expect(outputs).toMatchObject([{ kind: "hand-over", worker: 2, surplus: Uint8Array.of(1, 2, 3) }]);
    expect((outputs[0] as { head: Uint8Array }).head).toEqual(request);
    expect(server.halfOpenCount).toBe(halfOpen);
    expect(server.tunnelCount).toBe(0);
  });

  it("opens a lane at once on a connection that was handed over, without a second deadline", () => {
    const server = workerServer();
    const session = Uint8Array.of(2, ...crypto.random(15));
    const [output] = send(server, requestOf(KEY, { session, ticket: ticketFrom(server) }));
    const other = workerServer(2);
    other.handleHandedOver(2_000, (output as { head: Uint8Array }).head);
    expect(outputsOf(other)).toMatchObject([{ kind: "session-up", lane: 0 }]);
    expect(other.halfOpenCount).toBe(0);
    expect(other.tunnelCount).toBe(1);
  });

  it("assigns new sessions to its workers in turn, starting with itself", () => {
    const server = workerServer();
    const ticket = ticketFrom(server);
    const owners = Array.from({ length: 8 }, () => {
      const [output] = send(server, requestOf(KEY, { ticket }));
      return output.kind === "hand-over" ? output.worker : output.kind;
    });
    expect(owners).toEqual(["session-up", 1, 2, 3, "session-up", 1, 2, 3]);
  });
});

describe("a client with a key", () => {
  const keys = { client: { psk: KEY }, server: { psk: KEY } };

  it("is challenged once, on its first connection, for all its lanes and later connections", () => {
    const network = new Network({ ...keys, client: { psk: KEY, lanes: 4 } });
    network.start();
    expect(network.client.lanesUp).toBe(4);
    expect(network.clientEvents.filter(({ kind }) => kind === "connect")).toHaveLength(4);
    network.advance(3_600_000);
    network.cutConnections();
    network.advance(2_000);
    expect(network.client.lanesUp).toBe(4);
    expect(network.server.counters.refused.challenged).toBe(1);
  });

  it("is challenged again by a restarted server and then gets a session", () => {
    const network = new Network(keys);
    network.start();
    network.killServer();
    network.startServer();
    network.advance(6_000);
    expect(network.client.isUp).toBe(true);
    expect(network.server.counters.refused.challenged).toBe(1);
  });

  /** Connects a client's core to a server's core by hand. */
  function byHand() {
    const network = new Network(keys);
    const { client, server } = network;
    const now = 1_000;
    client.start(now);
    expect(client.pollOutput()).toMatchObject({ kind: "connect" });
    return {
      client,
      server,
      now,
      /** Connects, and sends the request to the server. @returns the answer */
      ask: () => {
        client.handleConnected(now, 0);
        const request = client.pollTransmit(now, 0)!.slice();
        client.handleTransmitted(0);
        return ask(server, request);
      },
      hear: (answer: string) => {
        const bytes = new TextEncoder().encode(answer);
        client.handleStream(now, 0, bytes, 0, bytes.length);
      },
      /** Whether the client connects again without waiting. */
      reconnects: () => {
        expect(client.nextTimeout()).toBeLessThanOrEqual(now);
        client.handleTimeout(now);
        expect(client.pollOutput()).toMatchObject({ kind: "connect" });
      },
    };
  }

  it("answers a 401 that closes its connection at once on another connection", () => {
    const { client, now, ask, hear, reconnects } = byHand();
    hear(ask().replace("Content-Length: 0", "Content-Length: 0\r\nConnection: close"));
    expect(client.pollOutput()).toEqual({ kind: "disconnect", lane: 0, error: undefined });
    client.handleDisconnected(now, 0, undefined);
    reconnects();
    hear(ask());
    expect(client.isUp).toBe(true);
  });

  it("answers the 401 again at once on another connection if the first one ends", () => {
    const { client, now, ask, hear, reconnects } = byHand();
    hear(ask());
    expect(client.pollTransmit(now, 0)).toBeDefined();
    client.handleTransmitted(0);
    client.handleDisconnected(now, 0, new Error("closed"));
    reconnects();
    hear(ask());
    expect(client.isUp).toBe(true);
  });

  it("waits as usual once the second connection has failed too", () => {
    const { client, now, ask, hear, reconnects } = byHand();
    hear(ask());
    client.handleDisconnected(now, 0, new Error("closed"));
    reconnects();
    client.handleDisconnected(now, 0, new Error("refused"));
    expect(client.nextTimeout()).toBeGreaterThan(now + 90);
  });

  it("pauses and reports why if every request is answered by 401", () => {
    const { client, now, ask: askServer, hear } = byHand();
    hear(askServer());
    const request = client.pollTransmit(now, 0)!.slice();
    client.handleTransmitted(0);
    // A balancer sends each request to another server.
    const other = new Network({ server: { psk: KEY, crypto: seededCryptography(5) } }).server;
    hear(ask(other, request));
    const output = client.pollOutput();
    expect(output).toMatchObject({ kind: "disconnect", error: { code: "ERR_UPGRADE_REFUSED" } });
    expect((output as { error: Error }).error.message).toContain("several servers behind one address");
    expect(client.nextTimeout()).toBeGreaterThan(now + 90);
  });

  it("names TLS as soon as it gets a TLS alert", () => {
    const { client, ask, hear } = byHand();
    ask();
    hear("\x15\x03\x01\x00\x02\x02\x46");
    const output = client.pollOutput();
    expect(output).toMatchObject({ kind: "disconnect", error: { code: "ERR_HEAD_MALFORMED" } });
    expect((output as { error: Error }).error.message).toContain("the server expects TLS");
  });

  it("ignores a 401 whose MAC is wrong", () => {
    const { client, ask, hear } = byHand();
    const answer = ask();
    hear(answer.replace(/c=:.{4}/, "c=:AAAA"));
    expect(client.pollOutput()).toMatchObject({ kind: "disconnect", error: { code: "ERR_SERVER_PROOF" } });
  });
});

describe("a server with a path for WebSockets", () => {
  const KEY_FIELD = "dGhlIHNhbXBsZSBub25jZQ==";
  const LINES = [
    ...["GET /tunnel HTTP/1.1", "Host: a", "Connection: keep-alive, Upgrade", "Upgrade: WebSocket"],
    ...["Sec-WebSocket-Version: 13", `Sec-WebSocket-Key: ${KEY_FIELD}`],
  ];
  const request = (lines = LINES) => new TextEncoder().encode(`${lines.join("\r\n")}\r\n\r\n`);
  const newServer = (options = {}) =>
    new Network({ server: { psk: KEY, webSocketPath: "/tunnel", ...options } }).server;

  /** Sends a request on a new connection. @returns the first output */
  function outputFor(server: TunnelServer, bytes: Uint8Array, isNested = false): ServerOutput | undefined {
    const connection = server.handleAccept(1_000, isNested);
    server.handleStream(1_000, connection, bytes, 0, bytes.length);
    const output = server.pollOutput();
    server.handleDisconnected(1_000, connection);
    outputsOf(server);
    return output;
  }

  it("passes the host a request for it and the bytes that follow", () => {
    const bytes = new Uint8Array([...request(), 1, 2, 3]);
    const output = outputFor(newServer(), bytes);
    expect(output).toMatchObject({ kind: "web-socket", key: KEY_FIELD, surplus: Uint8Array.of(1, 2, 3) });
  });

  it.each(["GET /tunnel?ed=2048 HTTP/1.1", "GET http://a/tunnel HTTP/1.1"])("takes %s", (startLine) => {
    expect(outputFor(newServer(), request([startLine, ...LINES.slice(1)]))?.kind).toBe("web-socket");
  });

  it.each([
    ["another path", 0, "GET /tunnel/ HTTP/1.1"],
    ["another method", 0, "POST /tunnel HTTP/1.1"],
    ["HTTP/1.0", 0, "GET /tunnel HTTP/1.0"],
    ["no Host", 1, "X: y"],
    ["no Upgrade among Connection", 2, "Connection: keep-alive"],
    ["another upgrade", 3, "Upgrade: h2c"],
    ["two upgrades", 3, "Upgrade: websocket, connect-udp"],
    ["another version", 4, "Sec-WebSocket-Version: 8"],
    ["a short key", 5, "Sec-WebSocket-Key: YQ=="],
    ["two keys", 4, `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${KEY_FIELD}`],
    ["content", 2, "Connection: Upgrade\r\nContent-Length: 5"],
    ["chunks", 2, "Connection: Upgrade\r\nTransfer-Encoding: chunked"],
  ])("refuses %s", (_, index, line) => {
    expect(outputFor(newServer(), request(LINES.with(index, line)))?.kind).toBe("close");
  });

  it("refuses a WebSocket inside a WebSocket and one at an unknown path", () => {
    expect(outputFor(newServer(), request(), true)?.kind).toBe("close");
    expect(outputFor(newServer({ webSocketPath: undefined }), request())?.kind).toBe("close");
  });

  it("keeps the session of a WebSocket in the worker that accepted it, and spreads others", () => {
    const server = newServer({ worker: { index: 0, count: 3 } });
    const ticket = ticketFrom(server);
    const kinds = [false, false, false, true, true, true].map(
      (isNested) => outputFor(server, requestOf(KEY, { ticket }), isNested)?.kind,
    );
    expect(kinds).toEqual(["session-up", "hand-over", "hand-over", "session-up", "session-up", "session-up"]);
  });

  it("passes strangers' bytes to the host if it has a decoy, except inside a WebSocket", () => {
    const server = newServer({ hasDecoy: true });
    const hello = new TextEncoder().encode("GET / HTTP/1.1\r\n\r\nbody");
    const output = outputFor(server, hello);
    expect(output).toMatchObject({ kind: "stranger", surplus: new TextEncoder().encode("body") });
    expect(new TextDecoder().decode((output as { head: Uint8Array }).head)).toBe("GET / HTTP/1.1\r\n\r\n");
    const wrongKey = requestOf(new TextEncoder().encode("another key of sixteen"));
    expect(outputFor(server, wrongKey)).toMatchObject({
      kind: "stranger",
      refusal: { reason: "bad_credentials" },
    });
    expect(outputFor(server, hello, true)?.kind).toBe("close");
    expect(server.counters.refused.bad_credentials).toBe(1);
    expect(server.halfOpenCount).toBe(0);
  });
});
