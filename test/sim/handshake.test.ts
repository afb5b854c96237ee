import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Transcript } from "../../src/core/credentials.ts";
import { requestMac, resumeMac } from "../../src/core/credentials.ts";
import type { ServerOutput, TunnelServer } from "../../src/core/server.ts";
import { BIND_PATH, encodeUpgradeRequest } from "../../src/wire/upgrade.ts";
import { EPOCH, Network, seededCryptography } from "./network.ts";

const KEY = new TextEncoder().encode("sixteen byte key");
const WORKERS = { index: 0, count: 4 };
const crypto = seededCryptography(7);

/** A server of four workers, without any client. */
function workerServer(overrides: { psk?: Uint8Array | undefined; index?: number } = {}): TunnelServer {
  const { psk = KEY, index = 0 } = overrides;
  return new Network({ server: { psk, worker: { ...WORKERS, index } } }).server;
}

/** A request as a client with `psk` sends it. */
function requestOf(psk: Uint8Array | undefined, fields: Partial<Transcript> = {}): Uint8Array {
  const transcript: Transcript = {
    path: BIND_PATH,
    nonce: crypto.random(16),
    time: EPOCH + 1_000,
    lane: 0,
    challenge: undefined,
    session: undefined,
    ...fields,
  };
  return encodeUpgradeRequest("a.test:1", BIND_PATH, true, {
    ...transcript,
    mac: psk === undefined ? undefined : requestMac(crypto, psk, transcript),
    resumeMac: fields.session === undefined ? undefined : resumeMac(crypto, KEY, transcript),
  });
}

function outputsOf(server: TunnelServer): ServerOutput[] {
  const outputs = [];
  for (let output = server.pollOutput(); output !== undefined; output = server.pollOutput())
    outputs.push(output);
  return outputs;
}

function send(server: TunnelServer, bytes: Uint8Array, now = 1_000): ServerOutput[] {
  const connection = server.handleAccept(now);
  server.handleStream(now, connection, bytes, 0, bytes.length);
  return outputsOf(server);
}

describe("a server of several workers", () => {
  const otherKey = new TextEncoder().encode("another sixteen byte key");

  it("hands no connection over for requests without the key, whatever session, nonce and lane they name", () => {
    const server = workerServer();
    const unproven = fc.record({
      psk: fc.constantFrom(undefined, otherKey),
      nonce: fc.uint8Array({ minLength: 16, maxLength: 16 }),
      lane: fc.nat(255),
      session: fc.option(fc.uint8Array({ minLength: 16, maxLength: 16 }), { nil: undefined }),
      challenge: fc.option(fc.uint8Array({ minLength: 16, maxLength: 16 }), { nil: undefined }),
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

  it("hands no connection over for a request that was seen before", () => {
    const server = workerServer();
    const session = Uint8Array.of(1, ...crypto.random(15));
    const request = requestOf(KEY, { session });
    expect(send(server, request)).toMatchObject([{ kind: "hand-over", worker: 1 }]);
    expect(send(server, request)).toMatchObject([{ kind: "close" }]);
    expect(server.counters.refused.replay).toBe(1);
  });

  it("closes a connection that proves nothing at its first deadline, though a challenge was answered wrongly", () => {
    const server = workerServer();
    const connection = server.handleAccept(1_000);
    const stale = requestOf(KEY, {
      time: EPOCH - 3_600_000,
      session: Uint8Array.of(1, ...crypto.random(15)),
    });
    server.handleStream(3_000, connection, stale, 0, stale.length);
    expect(outputsOf(server)).toEqual([]);
    expect(server.halfOpenCount).toBe(1);
    for (let now = 3_000; now < 6_000; now += 250) server.handleTimeout(now);
    expect(outputsOf(server)).toEqual([]);
    server.handleTimeout(6_000);
    expect(outputsOf(server)).toMatchObject([{ kind: "close", connection }]);
    expect(server.halfOpenCount).toBe(0);
  });

  it("hands a proven connection over with its request and what came behind it, and keeps nothing of it", () => {
    const server = workerServer();
    const request = requestOf(KEY, { session: Uint8Array.of(6, ...crypto.random(15)) });
    const outputs = send(server, Uint8Array.of(...request, 1, 2, 3));
    expect(outputs).toMatchObject([{ kind: "hand-over", worker: 2, surplus: Uint8Array.of(1, 2, 3) }]);
    expect((outputs[0] as { head: Uint8Array }).head).toEqual(request);
    expect(server.halfOpenCount).toBe(0);
    expect(server.tunnelCount).toBe(0);
  });

  it("opens a lane at once where a connection is handed over, without a second deadline", () => {
    const [output] = send(
      workerServer(),
      requestOf(KEY, { session: Uint8Array.of(2, ...crypto.random(15)) }),
    );
    const other = workerServer({ index: 2 });
    other.handleHandedOver(2_000, (output as { head: Uint8Array }).head);
    expect(outputsOf(other)).toMatchObject([{ kind: "session-up", lane: 0 }]);
    expect(other.halfOpenCount).toBe(0);
    expect(other.tunnelCount).toBe(1);
  });

  it("gives new sessions to its workers in turn, itself first", () => {
    const server = workerServer();
    const owners = Array.from({ length: 8 }, () => {
      const [output] = send(server, requestOf(KEY));
      return output.kind === "hand-over" ? output.worker : output.kind;
    });
    expect(owners).toEqual(["session-up", 1, 2, 3, "session-up", 1, 2, 3]);
  });
});
