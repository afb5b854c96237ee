import { describe, expect, it } from "vitest";
import {
  datagramHeaderLength,
  encodeAssociationClose,
  encodeCompressionClose,
  writeDatagramHeader,
} from "../../src/wire/capsule.ts";
import { attend, bringToAgreement } from "../fuzz/agreement.ts";
import { withinMs } from "../fuzz/guard.ts";
import { SHORTEST_PAYLOAD } from "../fuzz/ledger.ts";
import type { Settings } from "../fuzz/settings.ts";
import { ROOMY } from "../fuzz/settings.ts";
import { checkBounds, checkTables } from "../fuzz/tables.ts";
import type { ClientHost, Link } from "../fuzz/world/link.ts";
import { World } from "../fuzz/world/world.ts";

const HANG_MS = 5_000;

/** A client whose lanes are up, with one association whose target has received a datagram. */
function upAndRunning(settings: Partial<Settings> = {}) {
  const world = new World({ ...ROOMY, ...settings });
  attend(world);
  const [host] = world.clients;
  const association = world.openAssociation(host, false);
  world.traffic.send(host, association, 0, SHORTEST_PAYLOAD);
  attend(world);
  const [socket] = world.sockets.open;
  return { world, host, association, socket };
}

/** Ends the session's only lane at both ends and loses the data in flight. */
function cut(world: World): void {
  for (const link of [...world.links]) {
    link.isCut = true;
    world.loseClientSide(link);
    world.loseServerSide(link);
  }
}

function reconnect(world: World): void {
  world.advance(6_000, true);
  attend(world);
}

/** Advances time while the session has a lane and keeps sending to address 0. */
function keepBusy(world: World, host: ClientHost, association: number, ms: number): void {
  for (const end = world.now + ms; world.now < end; world.advance(5_000, true)) {
    world.traffic.send(host, association, 0, SHORTEST_PAYLOAD);
    attend(world);
  }
}

const FIRST_STRANGER = ROOMY.addresses + ROOMY.names;

describe("after a resume every flow gets through with at most one datagram lost, and both ends agree, when", () => {
  const cases: readonly {
    readonly what: string;
    readonly settings?: Partial<Settings>;
    readonly run: (at: ReturnType<typeof upAndRunning>) => void;
  }[] = [
    {
      what: "the server's CONTEXT_ASSIGN was lost with the lane",
      run: ({ world, socket }) => {
        world.traffic.receive(socket, FIRST_STRANGER, SHORTEST_PAYLOAD);
        cut(world);
      },
    },
    {
      what: "the client's CONTEXT_ASSIGN was lost with the lane",
      run: ({ world, host, association }) => {
        world.traffic.send(host, association, 1, SHORTEST_PAYLOAD);
        cut(world);
      },
    },
    {
      what: "the client's ASSOCIATION_OPEN was lost with the lane",
      run: ({ world, host }) => {
        world.traffic.send(host, world.openAssociation(host, false), 1, SHORTEST_PAYLOAD);
        cut(world);
      },
    },
    {
      what: "the server's COMPRESSION_ACK was lost with the lane",
      run: ({ world, host, association }) => {
        world.traffic.send(host, association, 1, SHORTEST_PAYLOAD);
        for (const link of world.links) world.deliverUp(link, 1 << 20);
        cut(world);
      },
    },
    {
      what: "the server closed its own context while there was no lane, and the client went on using it",
      run: ({ world, host, association, socket }) => {
        world.traffic.receive(socket, FIRST_STRANGER, SHORTEST_PAYLOAD);
        attend(world);
        world.traffic.send(host, association, FIRST_STRANGER, SHORTEST_PAYLOAD);
        keepBusy(world, host, association, 270_000);
        cut(world);
        for (let i = 0; i < 40; i++) {
          world.traffic.send(host, association, FIRST_STRANGER, SHORTEST_PAYLOAD);
          world.advance(1_000, false);
        }
      },
    },
    {
      what: "the server's COMPRESSION_CLOSE was lost with the lane",
      run: ({ world, host, association, socket }) => {
        world.traffic.receive(socket, FIRST_STRANGER, SHORTEST_PAYLOAD);
        attend(world);
        keepBusy(world, host, association, 290_000);
        for (const link of world.links) link.down.isStalled = true;
        world.advance(12_000, true);
        cut(world);
      },
    },
    {
      what: "the client closed its context while there was no lane, and the target went on answering",
      settings: { lingerMs: 600_000 },
      run: ({ world, host, association, socket }) => {
        world.traffic.send(host, association, 1, SHORTEST_PAYLOAD);
        attend(world);
        keepBusy(world, host, association, 10_000);
        cut(world);
        for (let i = 0; i < 62; i++) {
          world.traffic.receive(socket, 1, SHORTEST_PAYLOAD);
          world.traffic.send(host, association, 0, SHORTEST_PAYLOAD);
          world.advance(5_000, false);
        }
      },
    },
    {
      what: "the client's COMPRESSION_CLOSE was lost with the lane",
      run: ({ world, host, association }) => {
        world.traffic.send(host, association, 1, SHORTEST_PAYLOAD);
        attend(world);
        keepBusy(world, host, association, 290_000);
        for (const link of world.links) link.up.isStalled = true;
        world.advance(12_000, true);
        cut(world);
      },
    },
    {
      what: "the server forgot a name before it had answered",
      run: ({ world, host, association }) => {
        world.traffic.send(host, association, ROOMY.addresses, SHORTEST_PAYLOAD);
        world.exchange();
        const { contexts } = host.core;
        world.links[0].up.append(encodeCompressionClose(contexts.id[contexts.first(association)]));
        world.exchange();
      },
    },
    {
      what: "the server's socket failed while there was no lane",
      run: ({ world, socket }) => {
        cut(world);
        world.failSocket(socket);
      },
    },
    {
      what: "the server's ASSOCIATION_CLOSE was lost with the lane",
      run: ({ world, socket }) => {
        world.failSocket(socket);
        cut(world);
      },
    },
    {
      what: "the server ended the association for idleness while there was no lane",
      settings: { serverIdleMs: 20_000 },
      run: ({ world }) => {
        cut(world);
        world.advance(30_000, false);
      },
    },
    {
      what: "the client ended another association while there was no lane",
      run: ({ world, host }) => {
        const other = world.openAssociation(host, false);
        world.traffic.send(host, other, 1, SHORTEST_PAYLOAD);
        attend(world);
        cut(world);
        world.closeAssociation(host, other);
      },
    },
    {
      what: "the client's ASSOCIATION_CLOSE was lost with the lane",
      run: ({ world, host }) => {
        const other = world.openAssociation(host, false);
        world.traffic.send(host, other, 1, SHORTEST_PAYLOAD);
        attend(world);
        world.closeAssociation(host, other);
        cut(world);
      },
    },
    {
      what: "the session was too old, and the server numbers its contexts anew",
      settings: { lingerMs: 1_000, ageBudgetMs: 10_000 },
      run: ({ world, host, association, socket }) => {
        world.traffic.receive(socket, FIRST_STRANGER, SHORTEST_PAYLOAD);
        attend(world);
        cut(world);
        world.advance(1_500, false);
        // These are queued under the context id of the old session.
        world.traffic.send(host, association, 0, SHORTEST_PAYLOAD);
        world.traffic.send(host, association, FIRST_STRANGER, SHORTEST_PAYLOAD);
        const [link] = world.links;
        world.completeConnect(link);
        while (world.sockets.open.length === 0) {
          world.deliverDown(link, 1 << 20);
          world.deliverUp(link, 1);
        }
        world.traffic.receive(world.sockets.open[0], FIRST_STRANGER + 1, SHORTEST_PAYLOAD);
        world.exchange();
      },
    },
  ];

  const named = cases.map((one) => [one.what, one] as const);

  it.each(named)("%s", (_, { settings, run }) => {
    const at = upAndRunning(settings);
    run(at);
    reconnect(at.world);
    withinMs(HANG_MS, () => bringToAgreement(at.world));
  });

  it.each(
    named.flatMap(([what, one]) => [true, false].map((hasReceipts) => [what, hasReceipts, one] as const)),
  )("%s, of a session with two lanes and receipts %s", (_, hasReceipts, { settings, run }) => {
    const at = upAndRunning({ ...settings, lanes: 2, hasReceipts });
    run(at);
    reconnect(at.world);
    withinMs(HANG_MS, () => bringToAgreement(at.world));
  });
});

describe("an association whose datagrams arrive on one lane while its answers wait for another", () => {
  /** A DATAGRAM capsule of the client's first context. */
  function datagram(world: World, flow: number): Uint8Array {
    world.ledger.stampUp(flow, 0, SHORTEST_PAYLOAD);
    const header = datagramHeaderLength(2, SHORTEST_PAYLOAD);
    const bytes = new Uint8Array(header + SHORTEST_PAYLOAD);
    writeDatagramHeader(bytes, 0, 2, SHORTEST_PAYLOAD);
    bytes.set(world.ledger.payload.subarray(0, SHORTEST_PAYLOAD), header);
    return bytes;
  }

  /** Moves the association to each lane in turn and leaves two answers there: one lent, one queued. */
  function answersOnBothLanes() {
    const at = upAndRunning({ lanes: 2, hasReceipts: false, pipeBytes: 1, ageBudgetMs: 10_000 });
    const { world, socket, host, association } = at;
    const links = [...world.links].sort((a, b) => a.lane - b.lane) as [Link, Link];
    const flow = host.flows[association];
    for (const link of [...links, ...links]) {
      link.down.isStalled = true;
      link.up.append(datagram(world, flow));
      world.deliverUp(link, 1 << 20);
      world.traffic.receive(socket, 0, SHORTEST_PAYLOAD);
      world.traffic.receive(socket, 0, SHORTEST_PAYLOAD);
    }
    return { ...at, links };
  }

  function settle(world: World, links: readonly Link[]): void {
    withinMs(HANG_MS, () => {
      for (const link of links) link.down.isStalled = false;
      world.exchange();
      world.advance(1_000, true);
      checkBounds(world);
      checkTables(world);
      bringToAgreement(world);
    });
  }

  it("gets all its answers, each once", () => {
    const { world, links } = answersOnBothLanes();
    const before = world.ledger.arrived;
    settle(world, links);
    expect(world.ledger.arrived - before).toBeGreaterThanOrEqual(8);
  });

  it.each([0, 1])("ends while both lanes cannot be written, by a CLOSE on lane %i", (lane) => {
    const { world, host, association, links } = answersOnBothLanes();
    const id = host.core.wireId(association);
    links[lane].up.append(encodeAssociationClose(id, "done"));
    world.deliverUp(links[lane], 1 << 20);
    settle(world, links);
  });

  it.each([0, 1])("continues when lane %i ends while neither can be written", (lane) => {
    const { world, links } = answersOnBothLanes();
    links[lane].isCut = true;
    world.loseServerSide(links[lane]);
    settle(world, links);
  });

  it("ends with its socket while neither lane can be written", () => {
    const { world, socket, links } = answersOnBothLanes();
    world.failSocket(socket);
    settle(world, links);
  });

  it("ends with its session while neither lane can be written", () => {
    const { world, host, links } = answersOnBothLanes();
    world.closeClient(host);
    settle(world, links);
  });

  it("ages while neither lane can be written", () => {
    const { world, links } = answersOnBothLanes();
    world.advance(11_000, false);
    settle(world, links);
  });
});

describe("a flood of strangers above every limit of a session", () => {
  const MANY = 500;
  const settings: Partial<Settings> = { strangers: MANY, maxContextsPerSession: 64, addresses: 12 };

  function flood(world: World, socket: number): void {
    for (let i = 0; i < MANY; i++) {
      world.traffic.receive(socket, FIRST_STRANGER + 9 + i, SHORTEST_PAYLOAD);
      if (i % 50 === 0) attend(world);
    }
    attend(world);
  }

  it("does not keep an application from reaching a new target", () => {
    const { world, host, socket } = upAndRunning(settings);
    flood(world, socket);
    const other = world.openAssociation(host, false);
    const numbers = Array.from({ length: 12 }, (_, address) => {
      return world.traffic.send(host, other, address, SHORTEST_PAYLOAD);
    });
    attend(world);
    expect(numbers.filter((number) => world.ledger.hasArrived(number))).toHaveLength(12);
    checkBounds(world);
    checkTables(world);
  });

  it("does not keep known targets from answering", () => {
    const { world, host, association, socket } = upAndRunning(settings);
    for (let address = 0; address < 12; address++)
      world.traffic.send(host, association, address, SHORTEST_PAYLOAD);
    attend(world);
    flood(world, socket);
    const numbers = Array.from({ length: 12 }, (_, address) => {
      return world.traffic.receive(socket, address, SHORTEST_PAYLOAD);
    });
    attend(world);
    expect(numbers.filter((number) => world.ledger.hasArrived(number))).toHaveLength(12);
  });

  it("does not keep the address of a name from answering", () => {
    const { world, host, association, socket } = upAndRunning(settings);
    const name = 12;
    // No other flow sends to this address.
    world.answers[name] = world.ledger.answersFor(name).slice(-1);
    flood(world, socket);
    const sent = world.traffic.send(host, association, name, SHORTEST_PAYLOAD);
    attend(world);
    expect(world.ledger.hasArrived(sent)).toBe(true);
    const answer = world.traffic.receive(socket, world.answers[name][0], SHORTEST_PAYLOAD);
    attend(world);
    expect(world.ledger.hasArrived(answer)).toBe(true);
  });

  it("does not affect another session", () => {
    const { world, socket } = upAndRunning({ ...settings, clients: 2 });
    const other = world.clients[1 - world.ledger.clientOf[world.sockets.flows[socket]]];
    const association = world.openAssociation(other, false);
    world.traffic.send(other, association, 0, SHORTEST_PAYLOAD);
    attend(world);
    flood(world, socket);
    const at = world.sockets.associationOf[other.flows[association]];
    const number = world.traffic.receive(at, FIRST_STRANGER + 9, SHORTEST_PAYLOAD);
    attend(world);
    expect(world.ledger.hasArrived(number)).toBe(true);
  });
});
