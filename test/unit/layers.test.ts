import { readdirSync, readFileSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import type { Context } from "node:vm";
import { createContext, runInContext } from "node:vm";
import { build } from "esbuild";
import { describe, expect, it } from "vitest";
import type { Exchange } from "./memory/memory-exchange.ts";

const SOURCES = resolve(import.meta.dirname, "../../src");
const FOREIGN =
  /\b(Date|performance|setTimeout|setInterval|setImmediate|Buffer|console|process|TextEncoder|TextDecoder)\b|Math\.random/;

function files(folder: string): string[] {
  return readdirSync(join(SOURCES, folder), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts"))
    .map((name) => join(SOURCES, folder, name));
}

/** Folders of src that a file imports from; a bare specifier stands for itself. */
function imports(file: string): string[] {
  const text = readFileSync(file, "utf8");
  return [...text.matchAll(/^(?:import|export)\s[^;]*?from\s+"([^"]+)"/gms)].map(([, target]) =>
    target.startsWith(".") ? relative(SOURCES, resolve(file, "..", target)).split("/")[0] : target,
  );
}

describe("layers", () => {
  it.each([
    ["wire", ["wire"]],
    ["core", ["wire", "core"]],
    ["host", ["wire", "core", "host", "zod", "jsonc-parser", "@noble/hashes/legacy.js"]],
    ["capi", ["wire", "core", "host", "capi", "@noble/hashes/blake3.js", "zod"]],
  ])("%s imports only %s", (folder, allowed) => {
    expect(files(folder).length).toBeGreaterThan(3);
    for (const file of files(folder)) {
      for (const target of imports(file))
        expect({ file, target, isAllowed: allowed.includes(target) }).toMatchObject({ isAllowed: true });
    }
  });

  it("the map in ARCHITECTURE.md lists every file of src once", () => {
    const text = readFileSync(join(SOURCES, "../ARCHITECTURE.md"), "utf8");
    const heads = [...text.matchAll(/^- (`(?:wire|core|host|node|cli|capi)\/[^`]+`(?:, `[^`]+`)*):/gm)];
    const listed = heads
      .flatMap(([, head]) => [...head.matchAll(/`([^`,]*\/)([^`]+)`/g)])
      .flatMap(([, folder, names]) => names.split(", ").map((name) => folder + name));
    const written = readdirSync(SOURCES, { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(".ts") && name.includes("/"))
      .map((name) => name.slice(0, -".ts".length));
    expect(listed.toSorted()).toEqual(written.toSorted());
  });

  it("node imports no program", () => {
    for (const file of files("node")) expect(imports(file)).not.toContain("cli");
  });

  it.each(["wire", "core", "host", "capi"])(
    "%s uses no clock, timer, console or other feature of a host",
    (folder) => {
      for (const file of files(folder)) {
        const code = readFileSync(file, "utf8").replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, "");
        expect({ file, found: FOREIGN.exec(code)?.[0] }).toEqual({ file, found: undefined });
      }
    },
  );

  it("core runs with nothing but ECMAScript: a handshake with a key and a datagram there and back", async () => {
    const context = await bareContext(join(SOURCES, "core/index.ts"), "core");
    const result = runInContext(
      `(() => {
      let counter = 0;
      const crypto = {
        random: (length) => Uint8Array.from({ length }, () => (counter = (counter * 31 + 7) % 251)),
        hmac: (key, data) => {
          const mac = new Uint8Array(32);
          [...key, ...data].forEach((byte, i) => { mac[i % 32] = mac[i % 32] * 31 + byte; });
          return mac;
        },
      };
      const psk = Uint8Array.from({ length: 16 }, (_, i) => i);
      const shared = { psk, crypto, heartbeatMs: 5000, handshakeTimeoutMs: 5000, ageBudgetMs: 100, queueBytes: 1e6 };
      const client = new core.TunnelClient({ ...shared, lanes: 1, ways: [{ authority: "a:1", server: 0 }], maxAssociations: 9, maxContexts: 9, idleTimeoutMs: 1e5, activeIdleTimeoutMs: 1e5 });
      const server = new core.TunnelServer({ ...shared, filtering: "address-dependent", permits: () => true, lingerMs: 1, idleTimeoutMs: 1e6, maxHalfOpen: 9, maxTunnels: 9, maxSessions: 9, maxLingering: 9, maxAssociations: 9, maxAssociationsPerSession: 9, maxContextsPerSession: 9 });
      const now = 1000;
      client.start(now);
      const wanted = client.pollOutput().kind;
      client.handleConnected(now, 0);
      const connection = server.handleAccept(now);
      let answer;
      const move = () => {
        for (let i = 0; i < 4; i++) {
          const up = client.pollTransmit(now, 0);
          if (up) {
            server.handleStream(now, connection, up, 0, up.length);
            const { outgoing, contexts } = server;
            for (let k = 0; k < outgoing.count; k++) {
              server.handleDatagram(now, outgoing.association[k], outgoing.data, outgoing.offset[k], outgoing.length[k], contexts.target[outgoing.context[k]]);
            }
            client.handleTransmitted(0);
          }
          const down = server.pollTransmit(now, connection);
          if (down) {
            client.handleStream(now, 0, down, 0, down.length);
            const { received } = client;
            if (received.count) answer = [...received.data.subarray(received.offset[0], received.offset[0] + received.length[0])];
            server.handleTransmitted(connection);
          }
        }
      };
      move();
      const address = Uint8Array.of(1, 192, 0, 2, 1, 0, 53);
      client.handleDatagram(now, client.openAssociation(now, undefined, true), Uint8Array.of(104, 105), 0, 2, address, 0, 7);
      move();
      return JSON.stringify({ wanted, isUp: client.isUp, answer });
    })()`,
      context,
    );
    expect(JSON.parse(result)).toEqual({ wanted: "connect", isUp: true, answer: [104, 105] });
  });

  it("host runs there too: a forward's datagram through a client and a server, and the answer back", async () => {
    const context = await bareContext(join(import.meta.dirname, "memory/memory-exchange.ts"), "test");
    const { step, result } = runInContext("test.exchange()", context) as Exchange;
    for (let steps = 0; result.value === undefined && steps < 1_000; steps++) {
      step();
      await new Promise((done) => setImmediate(done));
    }
    expect(result.value).toBe("192.0.2.1:53 got hi, 127.0.0.1:5000 answered HI, 1 session");
  });
});

/** A context with the exports of a file and otherwise only ECMAScript. @param name  of the object that contains them */
async function bareContext(file: string, name: string): Promise<Context> {
  const bundle = await build({
    entryPoints: [file],
    bundle: true,
    write: false,
    format: "iife",
    globalName: name,
    target: "es2022",
  });
  const context = createContext(Object.create(null));
  runInContext(bundle.outputFiles[0].text, context);
  return context;
}
