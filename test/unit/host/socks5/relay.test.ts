import fc from "fast-check";
import { beforeEach, describe, expect, it } from "vitest";
import { Counters } from "../../../../src/core/counters.ts";
import { TYPESCRIPT_DATAPATH } from "../../../../src/core/datapath/typescript-datapath.ts";
import { ReceivedDatagrams, ROW_INTS } from "../../../../src/core/session/received-datagrams.ts";
import type { OnDatagrams, UdpIo, UdpSocket, UdpSocketOptions } from "../../../../src/host/io/udp-io.ts";
import { Socks5Relay } from "../../../../src/host/socks5/relay.ts";
import type { RelayHost } from "../../../../src/host/udp/fixed-forward.ts";
import { formatAddress, formatHost, makeAddress } from "../../../../src/wire/socket-address.ts";
import { writeUdpHeader } from "../../../../src/wire/socks5.ts";

const TARGET = makeAddress("192.0.2.1", 53)!;
const MAX_ASSOCIATIONS = 5;
const [A, B] = ["198.51.100.1", "198.51.100.2"];

/** `IP:PORT` as an address. */
function at(text: string) {
  const [host, port] = text.split(":");
  return makeAddress(host, Number(port))!;
}

/** A relay with everything around it. */
class World {
  now = 1_000;
  readonly counters = new Counters();
  /** Associations that are open, by number. */
  readonly open = new Set<number>();
  readonly registered = new Set<number>();
  /** `source > association` of the datagrams that entered the tunnel. */
  readonly sent: string[] = [];
  /** `association > destination`, and the number of the local address. */
  readonly delivered: string[] = [];
  readonly relay: Socks5Relay;
  #onDatagrams: OnDatagrams = () => {};
  #from = "";
  #opened = 0;
  readonly #births = new Map<number, number>();

  constructor(isStrict = false) {
    const core = {
      counters: this.counters,
      contexts: { address: [TARGET], generation: [1] },
      openAssociation: () => {
        if (this.open.size === MAX_ASSOCIATIONS) return -1;
        // Numbers are reused, like those of core.
        let number = 0;
        while (this.open.has(number)) number++;
        this.open.add(number);
        this.#births.set(number, ++this.#opened);
        return number;
      },
      closeAssociation: (_: number, number: number) => {
        if (!this.open.delete(number)) throw new Error(`${number} is not open`);
      },
      handleDatagram: (_: number, association: number) => {
        if (!this.open.has(association)) throw new Error(`${association} is not open`);
        this.sent.push(`${this.#from} > ${association}`);
      },
    };
    const host = {
      core,
      datapath: TYPESCRIPT_DATAPATH,
      turn: { now: () => this.now, schedule: () => {} },
      register: (association: number, relay: unknown) => {
        if (relay === undefined) this.registered.delete(association);
        else this.registered.add(association);
      },
    } as unknown as RelayHost;
    const io = {
      open: (options: UdpSocketOptions) => {
        this.#onDatagrams = options.onDatagrams;
        return {
          port: 1080,
          sendAll: (...[, , , , , , remote]: Parameters<UdpSocket["sendAll"]>) => {
            this.delivered.push(`${formatAddress(remote.address)} by ${remote.local}`);
            return 0;
          },
          close: () => {},
        };
      },
    } as unknown as UdpIo;
    this.relay = new Socks5Relay(host, io, { family: 4, host: undefined, port: 0 }, isStrict, 42, () => {});
  }

  /** The association's ordinal among all, because numbers are reused. */
  birthOf(association: number): number {
    return this.#births.get(association)!;
  }

  /** How many associations were ever opened. */
  get opened(): number {
    return this.#opened;
  }

  /** A datagram from `IP:PORT`. @returns its association, or undefined */
  send(from: string, local = 1, bytes = datagram()): number | undefined {
    const received = new ReceivedDatagrams(bytes, at(from), new Int32Array(ROW_INTS));
    received.setOnly(bytes, 0, bytes.length, at(from), local);
    this.#from = from;
    const before = this.sent.length;
    this.#onDatagrams(received, 0, 1);
    const said = this.sent[before];
    return said === undefined ? undefined : Number(said.split(" > ")[1]);
  }

  /** An answer of an association. @returns its destination, or undefined if it is dropped */
  answer(association: number): string | undefined {
    const before = this.delivered.length;
    this.relay.deliver(association, 0, new Uint8Array(3), Int32Array.of(0), Int32Array.of(3), 0, 1);
    return this.delivered[before];
  }

  admit(client: string): () => void {
    const leave = this.relay.admit(at(client));
    if (leave === undefined) throw new Error("too many");
    return leave;
  }
}

function datagram(): Uint8Array {
  const bytes = new Uint8Array(40);
  writeUdpHeader(bytes, 0, TARGET);
  return bytes;
}

describe("Socks5Relay for one client", () => {
  let world: World;

  beforeEach(() => {
    world = new World();
  });

  it("accepts only the client's IP, and counts others' datagrams as wrong_source", () => {
    world.admit(`${A}:0`);
    expect(world.send(`${B}:5000`)).toBeUndefined();
    expect(world.send(`${A}:5000`)).toBe(0);
    expect(world.send(`${B}:5000`)).toBeUndefined();
    expect(world.counters.drops.wrong_source).toBe(2);
    expect(world.answer(0)).toBe(`${A}:5000 by 1`);
  });

  it("follows the client's port when it moves, with the same association", () => {
    world.admit(`${A}:0`);
    expect([world.send(`${A}:5000`), world.send(`${A}:5001`)]).toEqual([0, 0]);
    expect(world.answer(0)).toBe(`${A}:5001 by 1`);
    expect(world.opened).toBe(1);
  });

  it("follows it also from the port that the request named", () => {
    world.admit(`${A}:5000`);
    expect(world.answer(0)).toBe(`${A}:5000 by 0`);
    expect(world.send(`${A}:5001`)).toBe(0);
    expect(world.answer(0)).toBe(`${A}:5001 by 1`);
  });

  it.each([0, 5000])("does not follow it when it is strict, with port %d in the request", (named) => {
    world = new World(true);
    world.admit(`${A}:${named}`);
    expect([world.send(`${A}:5000`), world.send(`${A}:5001`), world.send(`${A}:5000`)]).toEqual([
      0,
      undefined,
      0,
    ]);
    expect(world.answer(0)).toBe(`${A}:5000 by 1`);
  });

  it("answers from the address to which the client now sends", () => {
    world.admit(`${A}:0`);
    world.send(`${A}:5000`, 1);
    world.send(`${A}:5000`, 2);
    expect(world.answer(0)).toBe(`${A}:5000 by 2`);
  });

  it("learns nothing from fragments, or from anything but a SOCKS5 datagram", () => {
    world.admit(`${A}:0`);
    const fragment = datagram();
    fragment[2] = 1;
    expect(world.send(`${A}:5000`, 1, fragment)).toBeUndefined();
    expect(world.send(`${A}:5000`, 1, new Uint8Array(2))).toBeUndefined();
    expect(world.answer(0)).toBeUndefined();
    world.send(`${A}:5001`);
    expect(world.send(`${A}:5000`, 1, fragment)).toBeUndefined();
    expect(world.answer(0)).toBe(`${A}:5001 by 1`);
    expect(world.counters.drops).toMatchObject({ wrong_source: 3, fragment: 0, malformed: 0 });
    world.send(`${A}:5001`, 1, fragment);
    world.send(`${A}:5001`, 1, new Uint8Array(2));
    expect(world.counters.drops).toMatchObject({ wrong_source: 3, fragment: 1, malformed: 1 });
  });

  it("accepts nobody once the client has left, and has ended its association", () => {
    const leave = world.admit(`${A}:0`);
    world.send(`${A}:5000`);
    leave();
    expect(world.send(`${A}:5000`)).toBeUndefined();
    expect([world.open.size, world.registered.size]).toEqual([0, 0]);
  });
});

describe("Socks5Relay that several clients share", () => {
  let world: World;

  beforeEach(() => {
    world = new World();
  });

  it("distinguishes clients with different IPs and the same port", () => {
    world.admit(`${A}:0`);
    world.admit(`${B}:0`);
    expect([world.send(`${B}:5000`), world.send(`${A}:5000`)]).toEqual([1, 0]);
    expect([world.answer(0), world.answer(1)]).toEqual([`${A}:5000 by 1`, `${B}:5000 by 1`]);
  });

  it("distinguishes clients of one IP by their ports, each with its own association", () => {
    world.admit(`${A}:0`);
    world.admit(`${A}:0`);
    expect([world.send(`${A}:5000`), world.send(`${A}:5001`), world.send(`${A}:5000`)]).toEqual([0, 1, 0]);
    expect([world.answer(0), world.answer(1)]).toEqual([`${A}:5000 by 1`, `${A}:5001 by 1`]);
  });

  it("accepts no more sources of an IP than it has clients there", () => {
    world.admit(`${A}:0`);
    world.admit(`${A}:0`);
    world.send(`${A}:5000`);
    world.send(`${A}:5001`);
    expect(world.send(`${A}:5002`)).toBeUndefined();
    expect(world.counters.drops.wrong_source).toBe(1);
  });

  it("gives the place of a source that was silent for 10 s to a new one, with another association", () => {
    world.admit(`${A}:0`);
    world.admit(`${A}:0`);
    world.send(`${A}:5000`);
    world.send(`${A}:5001`);
    world.now += 9_999;
    world.send(`${A}:5001`);
    expect(world.send(`${A}:5002`)).toBeUndefined();
    world.now += 1;
    const opened = world.opened;
    const association = world.send(`${A}:5002`)!;
    expect(world.opened).toBe(opened + 1);
    expect(world.answer(association)).toBe(`${A}:5002 by 1`);
    expect(world.send(`${A}:5000`)).toBeUndefined();
    expect(world.answer(1)).toBe(`${A}:5001 by 1`);
  });

  it("gives no place away if it is strict", () => {
    world = new World(true);
    world.admit(`${A}:0`);
    world.admit(`${A}:0`);
    world.send(`${A}:5000`);
    world.send(`${A}:5001`);
    world.now += 1e9;
    expect(world.send(`${A}:5002`)).toBeUndefined();
  });

  it("keeps the place of a port that a request named, before it has sent and however long it is silent", () => {
    world.admit(`${A}:5000`);
    world.admit(`${A}:0`);
    expect(world.send(`${A}:5001`)).toBe(1);
    world.now += 1e9;
    // The one without a named port moves.
    const moved = world.send(`${A}:5002`)!;
    expect(world.answer(moved)).toBe(`${A}:5002 by 1`);
    expect(world.send(`${A}:5000`)).toBe(0);
    expect(world.send(`${A}:5001`)).toBeUndefined();
  });

  it("gives a port that is named twice to the later client; the former counts as one without a name", () => {
    const former = world.admit(`${A}:5000`);
    world.send(`${A}:5000`);
    world.admit(`${A}:5000`);
    const later = world.send(`${A}:5000`)!;
    expect(world.answer(later)).toBe(`${A}:5000 by 1`);
    former();
    expect(world.send(`${A}:5000`)).toBe(later);
    expect(world.open.size).toBe(1);
  });

  it("ends the source that was silent longest when a client leaves, because its owner is unknown", () => {
    const first = world.admit(`${A}:0`);
    world.admit(`${A}:0`);
    // The second client sends first, and so gets the first client's association.
    world.send(`${A}:5001`);
    world.now += 5;
    world.send(`${A}:5000`);
    world.now += 5;
    world.send(`${A}:5001`);
    first();
    expect(world.send(`${A}:5001`)).toBe(0);
    expect([...world.open]).toEqual([0]);
  });

  it("ends an unused place before one that is in use", () => {
    const early = world.admit(`${A}:0`);
    world.admit(`${A}:0`);
    world.send(`${A}:5000`);
    early();
    expect(world.send(`${A}:5000`)).toBe(0);
  });

  it("refuses a client when there are too many associations", () => {
    for (let i = 0; i < MAX_ASSOCIATIONS; i++) world.admit(`${A}:0`);
    expect(world.relay.admit(at(`${B}:0`))).toBeUndefined();
    expect(world.send(`${B}:5000`)).toBeUndefined();
  });

  it("never accepts a source whose IP has no client, or more sources than clients, and never answers another source", () => {
    const ips = [A, B, "198.51.100.3"];
    const step = fc.oneof(
      fc.record({ kind: fc.constant("admit" as const), ip: fc.nat(1), port: fc.constantFrom(0, 0, 1, 2) }),
      fc.record({ kind: fc.constant("leave" as const), which: fc.nat(9) }),
      {
        weight: 4,
        arbitrary: fc.record({
          kind: fc.constant("send" as const),
          ip: fc.nat(2),
          port: fc.integer({ min: 1, max: 4 }),
        }),
      },
      fc.record({ kind: fc.constant("wait" as const), ms: fc.constantFrom(1, 5_000, 10_000) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60, size: "max" }), fc.boolean(), (steps, isStrict) => {
        world = new World(isStrict);
        const clients: { ip: string; leave: () => void }[] = [];
        /** The source of each association's last datagram, by ordinal. */
        const sourceOf = new Map<number, string>();
        for (const one of steps) {
          if (one.kind === "admit") {
            const leave = world.relay.admit(at(`${ips[one.ip]}:${one.port}`));
            if (leave !== undefined) clients.push({ ip: ips[one.ip], leave });
            else expect(world.open.size).toBe(MAX_ASSOCIATIONS);
          } else if (one.kind === "leave") {
            clients.splice(one.which % Math.max(1, clients.length), 1)[0]?.leave();
          } else if (one.kind === "wait") world.now += one.ms;
          else {
            const source = `${ips[one.ip]}:${one.port}`;
            const association = world.send(source);
            const isHeard = association !== undefined;
            const ofIp = clients.filter(({ ip }) => ip === ips[one.ip]).length;
            expect(isHeard && ofIp === 0).toBe(false);
            if (!isHeard) continue;
            const birth = world.birthOf(association);
            // Only the single client of an IP takes over the association of another source.
            if (ofIp > 1) expect(sourceOf.get(birth) ?? source).toBe(source);
            sourceOf.set(birth, source);
          }
          // Each client has one association; no others are open or registered.
          expect(world.open.size).toBe(clients.length);
          expect(world.registered).toEqual(world.open);
          const heard = new Map<string, number>();
          for (const association of world.open) {
            const to = world.answer(association)?.split(" by ")[0];
            if (to === undefined) continue;
            heard.set(to, (heard.get(to) ?? 0) + 1);
            expect(clients.map(({ ip }) => ip)).toContain(formatHost(at(to)));
          }
          // No two associations answer the same source.
          for (const count of heard.values()) expect(count).toBe(1);
        }
      }),
      { seed: 130, numRuns: 2_000 },
    );
  });
});
