import { describe, expect, it } from "vitest";
import { NameLookups } from "../../../../src/host/addresses/name-lookups.ts";
import { silentLogger } from "../../../../src/host/log.ts";
import { MemoryWorld } from "../../memory/memory-system.ts";

/** A machine that looks up `lookUpConcurrency` names at a time and answers on request. */
function world(lookUpConcurrency: number, workers = 1) {
  const asked: string[] = [];
  const answers = new Map<string, () => void>();
  const memory = new MemoryWorld();
  const system = {
    ...memory.system,
    lookUpConcurrency,
    lookUp: (name: string) =>
      new Promise<readonly string[]>((done) => {
        asked.push(name);
        answers.set(name, () => done(["192.0.2.1"]));
      }),
  };
  const names = new NameLookups(system, silentLogger, workers);
  const ask = (client: string, count: number) => {
    for (let i = 0; i < count; i++) names.lookUp(client, `${client}${i}`).catch(() => {});
  };
  const settle = async () => {
    for (let i = 0; i < 10; i++) await null;
  };
  const run = async (ms: number) => {
    for (const end = system.now() + ms; system.now() < end; ) {
      memory.step();
      await null;
    }
  };
  return { asked, answers, names, ask, settle, run };
}

describe("the system's resolver", () => {
  it("is used to its limit by a client that is alone", () => {
    const { asked, ask } = world(4);
    ask("a", 10);
    expect(asked).toEqual(["a0", "a1", "a2", "a3"]);
  });

  it("leaves half of its places to another client, even if that has nothing to ask for a minute", async () => {
    const { asked, answers, ask, settle, run } = world(4);
    ask("b", 1);
    answers.get("b0")!();
    await settle();
    ask("a", 10);
    expect(asked).toEqual(["b0", "a0", "a1"]);
    ask("b", 2);
    expect(asked).toEqual(["b0", "a0", "a1", "b0", "b1"]);
    for (const name of ["b0", "b1"]) answers.get(name)!();
    await run(60_000);
    // What waited has passed its deadline, and nobody else has asked for a minute.
    ask("a", 3);
    expect(asked.slice(5)).toEqual(["a0", "a1"]);
  });

  it("answers one client while all names of another take for ever", async () => {
    const { asked, answers, ask, settle, run } = world(2);
    ask("a", 1);
    answers.get("a0")!();
    await settle();
    ask("slow", 60);
    await run(20_000);
    for (let i = 0; i < 20; i++) {
      ask("a", 1);
      expect(asked.at(-1)).toBe("a0");
      answers.get("a0")!();
      await settle();
    }
    expect(asked.filter((name) => name.startsWith("slow"))).toEqual(["slow0"]);
  });

  it("serves waiting clients in turn", async () => {
    const { asked, answers, ask, settle } = world(1);
    ask("first", 1);
    for (const client of ["a", "b", "c"]) ask(client, 2);
    for (let i = 0; i < 7; i++) {
      answers.get(asked[i])!();
      await settle();
    }
    expect(asked).toEqual(["first0", "a0", "b0", "c0", "a1", "b1", "c1"]);
  });

  it("remembers no more idle clients than it has places, however many sessions ask for one name each", async () => {
    const { asked, answers, names, ask, settle } = world(2);
    for (let i = 0; i < 500; i++) {
      ask(`session${i}`, 1);
      answers.get(asked.at(-1)!)!();
      await settle();
    }
    expect(asked).toHaveLength(500);
    expect(names.clientCount).toBeLessThanOrEqual(3);
    ask("slow", 10);
    ask("a", 1);
    expect(asked.slice(500)).toEqual(["slow0", "a0"]);
  });

  it("is shared by the threads of a server", () => {
    const { asked, ask } = world(4, 2);
    ask("a", 10);
    expect(asked).toHaveLength(2);
  });

  it("accepts 256 names of a client, and 1,024 in total", async () => {
    const { names, ask } = world(2);
    ask("a", 256);
    await expect(names.lookUp("a", "more")).rejects.toThrow("too many names are being looked up");
    for (const client of ["b", "c", "d"]) ask(client, 256);
    await expect(names.lookUp("e", "more")).rejects.toThrow("too many names are being looked up");
  });
});
