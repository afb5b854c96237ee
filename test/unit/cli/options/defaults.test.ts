import { describe, expect, it } from "vitest";
import type { OptionFields } from "../../../../src/host/options/fields/fields.ts";
import { UDP_LOCAL_FIELDS } from "../../../../src/node/options/udp-local.ts";
import { UDP_SERVER_FIELDS } from "../../../../src/node/options/udp-server.ts";
import { complaint, resolveLocal, resolveServer } from "./resolving.ts";

const NO_TAP = {
  tapFiles: 2,
  tapFileBytes: 104_857_600,
  tapPayloadBytes: 65_535,
  tapFilter: [],
  tapInterfaces: "one",
};

describe("defaults", () => {
  it("udp-local has these defaults", () => {
    expect(resolveLocal({})).toEqual({
      ...NO_TAP,
      listen: "127.0.0.1:1234",
      ways: [{ server: "127.0.0.1:3456", via: [] }],
      forwards: [],
      tcpVia: [],
      outMark: 0,
      socksAdvertise: [],
      socksUdpStrict: false,
      lanes: "auto",
      ageBudgetMs: 100,
      queueBytes: 1_048_576,
      heartbeatMs: 5_000,
      workers: 1,
      latency: "balanced",
      latencyRules: [],
      ipv6Only: false,
      maxAssociations: 4_096,
      maxContexts: 65_536,
      idleTimeoutS: 60,
      activeIdleTimeoutS: 300,
    });
  });

  it.each([
    ["/tunnel", "/tunnel"],
    ["/tunnel/", "/tunnel"],
    ["/a/b%20c/~d", "/a/b%20c/~d"],
    ["/", ""],
    ["", ""],
  ])("a path prefix of %j is read as %j", (given, taken) => {
    expect(resolveLocal({ pathPrefix: given }).pathPrefix).toBe(taken);
  });

  it("udp-server has these defaults", () => {
    expect(resolveServer({})).toEqual({
      ...NO_TAP,
      listen: ["127.0.0.1:3456"],
      ssRelay: "off",
      insecureOpenRelay: false,
      drainS: 0,
      allow: [],
      deny: [],
      dialects: [],
      filtering: "address-dependent",
      lingerS: 60,
      egress: "sockets",
      publicAddress: [],
      ageBudgetMs: 100,
      queueBytes: 1_048_576,
      heartbeatMs: 5_000,
      workers: 1,
      latency: "balanced",
      ipv6Only: false,
      maxTunnels: 8_192,
      maxHalfOpen: 256,
      maxSessions: 1_024,
      maxLingering: 1_024,
      maxAssociations: 16_384,
      maxAssociationsPerSession: 4_096,
      maxContextsPerSession: 65_536,
      handshakeTimeoutMs: 5_000,
      idleTimeoutS: 600,
    });
  });
});

describe("ranges", () => {
  it.each([
    ["ageBudgetMs", 1, 60_000],
    ["queueBytes", 131_072, 2 ** 30],
    ["heartbeatMs", 100, 60_000],
    ["workers", 1, 256],
    ["maxAssociations", 1, 1_000_000],
    ["maxContexts", 1, 1_000_000],
    ["idleTimeoutS", 1, 86_400],
    ["activeIdleTimeoutS", 1, 86_400],
  ])("udp-local's %s is an integer from %d to %d", (name, low, high) => {
    expectRange(resolveLocal, name, low, high);
  });

  it.each([
    ["lingerS", 0, 86_400],
    ["ageBudgetMs", 1, 60_000],
    ["queueBytes", 131_072, 2 ** 30],
    ["heartbeatMs", 100, 60_000],
    ["workers", 1, 256],
    ["maxTunnels", 1, 1_000_000],
    ["maxHalfOpen", 1, 1_000_000],
    ["maxSessions", 1, 1_000_000],
    ["maxLingering", 0, 1_000_000],
    ["maxAssociations", 1, 1_000_000],
    ["maxAssociationsPerSession", 1, 1_000_000],
    ["maxContextsPerSession", 1, 1_000_000],
    ["handshakeTimeoutMs", 100, 60_000],
    ["idleTimeoutS", 1, 86_400],
  ])("udp-server's %s is an integer from %d to %d", (name, low, high) => {
    expectRange(resolveServer, name, low, high);
  });

  function expectRange(resolve: (input: object) => object, name: string, low: number, high: number): void {
    for (const value of [low, high]) expect(() => resolve({ [name]: value })).not.toThrow();
    for (const value of [low - 1, high + 1, low + 0.5, Number.NaN, String(high), null]) {
      expect(complaint(() => resolve({ [name]: value }))).toMatch(
        new RegExp(`^${name}: expected an integer from ${low} to ${high}, got `),
      );
    }
  }

  it("udp-local's lanes is auto or an integer from 1 to 16", () => {
    for (const lanes of ["auto", 1, 16]) expect(() => resolveLocal({ lanes })).not.toThrow();
    for (const lanes of [0, 17, 1.5, "many", "2", null]) {
      expect(complaint(() => resolveLocal({ lanes }))).toMatch(
        /^lanes: expected auto or an integer from 1 to 16, got /,
      );
    }
  });

  it("raises activeIdleTimeoutS to idleTimeoutS when that is longer", () => {
    expect(resolveLocal({ idleTimeoutS: 400 })).toMatchObject({ activeIdleTimeoutS: 400 });
  });
});

describe("one table", () => {
  it.each([
    ["udp-local", UDP_LOCAL_FIELDS, ["carrier"]],
    ["udp-server", UDP_SERVER_FIELDS, []],
  ])(
    "every option of %s has a flag in kebab-case, except those that only the library has",
    (_, table, alone) => {
      const fields = Object.entries(table as OptionFields);
      const flags = fields.flatMap(([, { flag }]) => flag ?? []);
      expect(fields.filter(([, { flag }]) => flag === undefined).map(([name]) => name)).toEqual(alone);
      expect(new Set(flags).size).toBe(flags.length);
      for (const flag of flags) expect(flag).toMatch(/^[a-z][a-z0-9]*(-[a-z]+)*$/);
    },
  );
});
