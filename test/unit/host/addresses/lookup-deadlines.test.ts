import { describe, expect, it } from "vitest";
import { NameLookups } from "../../../../src/host/addresses/name-lookups.ts";
import { Cancellation } from "../../../../src/host/cancellation.ts";
import { silentLogger } from "../../../../src/host/log.ts";
import { TargetRelay } from "../../../../src/host/shadowsocks/target-relay.ts";
import type { ByteStream } from "../../../../src/host/stream/byte-stream.ts";
import { configuredRelay, relayAddress } from "../../../../src/host/udp-paths/relay-address.ts";
import { makeAddress } from "../../../../src/wire/socket-address.ts";
import { MemoryWorld } from "../../memory/memory-system.ts";

const DEADLINE_MS = 5_000;
const NAME = makeAddress("name.example", 53)!;

/** A machine whose resolver answers on request, or never. */
function deafWorld() {
  const world = new MemoryWorld();
  const answers: ((ips: readonly string[]) => void)[] = [];
  const system = {
    ...world.system,
    lookUp: () => new Promise<readonly string[]>((done) => answers.push(done)),
  };
  /** Lets time pass. */
  const run = async (ms: number) => {
    for (const end = system.now() + ms; system.now() < end; ) {
      world.step();
      await null;
    }
  };
  return { world, system, answers, run };
}

/** The outcome of a promise as text, once it has settled. */
function watched(promise: Promise<unknown>): { end: string | undefined } {
  const state: { end: string | undefined } = { end: undefined };
  promise.then(
    () => {
      state.end = "resolved";
    },
    (error: Error) => {
      state.end = error.message;
    },
  );
  return state;
}

describe("a look-up of a name that the system never answers", () => {
  const { system } = deafWorld();
  const lookUps: [string, (of: typeof system) => Promise<unknown>][] = [
    ["of a target of TCP", (of) => new NameLookups(of, silentLogger).lookUp("a", "name.example")],
    ["of a bare relay", (of) => configuredRelay(of, "name.example", 53, new Cancellation())],
    ["in a SOCKS5 reply", (of) => relayAddress(of, NAME, "192.0.2.1", new Cancellation())],
  ];

  it.each(lookUps)("%s fails after 5 s", async (_, lookUp) => {
    const { system: deaf, run } = deafWorld();
    const state = watched(lookUp(deaf));
    await run(DEADLINE_MS - 100);
    expect(state.end).toBeUndefined();
    await run(200);
    expect(state.end).toBe("the name was not resolved");
  });

  it("of a target of UDP gives no addresses after 5 s", async () => {
    const { system: deaf, run } = deafWorld();
    const found = new NameLookups(deaf, silentLogger).resolve("a", "name.example", 53);
    await run(DEADLINE_MS + 100);
    expect(await found).toEqual([]);
  });

  it("keeps its place until the system has finished it, and then another look-up gets that", async () => {
    const { system: deaf, answers, run } = deafWorld();
    const names = new NameLookups(deaf, silentLogger);
    const states = Array.from({ length: 256 }, () => watched(names.lookUp("a", "name.example")));
    await expect(names.lookUp("a", "name.example")).rejects.toThrow("too many names");
    await run(DEADLINE_MS + 100);
    expect(states.every(({ end }) => end === "the name was not resolved")).toBe(true);
    const last = watched(names.lookUp("a", "name.example"));
    await run(20);
    expect(answers).toHaveLength(8);
    answers[7](["192.0.2.1"]);
    await run(20);
    answers[8](["192.0.2.1"]);
    await run(20);
    expect(last.end).toBe("resolved");
  });

  it("ends the connection of its client, whose place another takes", async () => {
    const { world, system: deaf, run } = deafWorld();
    const names = new NameLookups(deaf, silentLogger);
    const refused: string[] = [];
    const relay = new TargetRelay({
      loop: deaf,
      way: { connect: () => Promise.reject(new Error("not asked")), close: async () => {} },
      maxRelays: 1,
      permits: () => true,
      lookUp: (name) => names.lookUp("a", name),
      log: silentLogger,
      onRefused: (reason) => refused.push(reason),
    });
    await world.tcp.listen({ host: "127.0.0.1", port: 1080 }, {
      onStream: (stream: ByteStream) => void relay.relay(stream, NAME),
    } as never);
    const connect = () => {
      const client = { isClosed: false };
      world.tcp.connect({ host: "127.0.0.1", port: 1080 }, undefined, (result) => {
        (result as ByteStream).start({
          onBytes: () => {},
          onEnd: () => {},
          onWritten: () => {},
          onClose: () => {
            client.isClosed = true;
          },
        });
      });
      return client;
    };
    const first = connect();
    await run(DEADLINE_MS - 100);
    expect(first.isClosed).toBe(false);
    await run(200);
    expect(first.isClosed).toBe(true);
    const second = connect();
    await run(100);
    expect(second.isClosed).toBe(false);
    expect(refused).toEqual([]);
  });
});
