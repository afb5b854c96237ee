import {
  encodeAssociationClose,
  encodeAssociationOpen,
  encodeCompressionAck,
  encodeCompressionClose,
  encodeUnreachable,
  UNREACHABLE_KINDS,
} from "../../src/wire/capsule.ts";
import { MAX_RECEIPT_BYTES, MAX_RECEIPT_ITEMS, ReceiptWriter } from "../../src/wire/receipt.ts";
import { makeAddress } from "../../src/wire/socket-address.ts";
import { bringToAgreement } from "./agreement.ts";
import { sourceOf } from "./flow-source.ts";
import { LONGEST_PAYLOAD, SHORTEST_PAYLOAD } from "./ledger.ts";
import type { ClientHost, Link } from "./world/link.ts";
import type { World } from "./world/world.ts";

/**
 * Something that happens. The three numbers, of 32 bits each, select what it happens to. Any numbers are valid in any state, so a run from
 * which some actions were removed is still a run.
 */
interface Action {
  readonly name: string;
  readonly theme: string;
  /** Frequency relative to the others. */
  readonly weight: number;
  readonly run: (world: World, a: number, b: number, c: number) => void;
}

/** A payload's length: usually short, sometimes any length that UDP permits. */
function lengthOf(number: number): number {
  if (number % 64 === 0)
    return SHORTEST_PAYLOAD + ((number >>> 8) % (LONGEST_PAYLOAD - SHORTEST_PAYLOAD + 1));
  if (number % 8 === 0) return 1_200;
  return SHORTEST_PAYLOAD + ((number >>> 8) % 64);
}

/** A client that has not ended, and one of its associations; opens one if it has none. */
function someFlow(world: World, number: number): { host: ClientHost; association: number } | undefined {
  const host = world.clients[number % world.clients.length];
  if (host.isClosed) return undefined;
  const { open } = host;
  const association =
    open.length > 0 ? open[(number >>> 8) % open.length] : world.openAssociation(host, true);
  return association < 0 ? undefined : { host, association };
}

/** A link into which bytes may be inserted that neither end has sent. */
function someLyingLink(world: World, number: number): Link | undefined {
  if (!world.settings.hasLies) return undefined;
  return someLink(world, number, (one) => one.isEstablished && one.clientIsOpen && one.serverIsOpen);
}

function someLink(world: World, number: number, suits: (link: Link) => boolean): Link | undefined {
  const { links } = world;
  for (let i = 0; i < links.length; i++) {
    const link = links[(number + i) % links.length];
    if (suits(link)) return link;
  }
  return undefined;
}

function lyingReceipt(a: number, b: number): Uint8Array {
  const bytes = new Uint8Array(MAX_RECEIPT_BYTES);
  const writer = new ReceiptWriter();
  writer.begin(bytes, 0, Math.imul(a, 0x9e37_79b1));
  const lanes = (b >>> 4) % 40;
  for (let i = 0; i < Math.min(lanes, MAX_RECEIPT_ITEMS); i++) {
    const mixed = Math.imul(a + i, 0x85eb_ca6b) ^ Math.imul(b, i + 1);
    writer.add(b & 1 ? i : mixed & 0xff, mixed >>> 16, b & 2 ? mixed >>> 2 : mixed & 0xffff);
  }
  const end = writer.end();
  // Sometimes its last lane ends in the middle of it.
  if (b % 64 !== 0 || lanes === 0) return bytes.subarray(0, end);
  bytes[5]--;
  return bytes.subarray(0, end - 1);
}

const isThere = (link: Link) => link.server !== undefined;

export const ACTIONS: readonly Action[] = [
  {
    name: "send",
    theme: "flows",
    weight: 120,
    run: (world, a, b, c) => {
      const flow = someFlow(world, a);
      if (flow === undefined) return;
      world.traffic.send(flow.host, flow.association, b % world.ledger.targetCount, lengthOf(c));
    },
  },
  {
    name: "send run",
    theme: "flows",
    weight: 30,
    run: (world, a, b, c) => {
      const flow = someFlow(world, a);
      if (flow === undefined) return;
      world.traffic.sendRun(flow.host, flow.association, b % world.ledger.targetCount, 1 + (c % 40));
    },
  },
  {
    name: "send to stranger",
    theme: "strangers",
    weight: 15,
    run: (world, a, b, c) => {
      const flow = someFlow(world, a);
      if (flow === undefined) return;
      const { addresses, targetCount } = world.ledger;
      const address = targetCount + (b % (addresses.length - targetCount));
      world.traffic.send(flow.host, flow.association, address, lengthOf(c));
    },
  },
  {
    name: "reply",
    theme: "flows",
    weight: 100,
    run: (world, a, _b, c) => {
      const { replies, generations, flows } = world.sockets;
      if (replies.length === 0 || !world.serverIsUp) return;
      const [{ association, generation, address }] = replies.splice(a % replies.length, 1);
      if ((generations[association] ?? 0) !== generation || flows[association] < 0) return;
      world.traffic.receive(association, address, lengthOf(c));
    },
  },
  {
    name: "stranger",
    theme: "strangers",
    weight: 40,
    run: (world, a, b, c) => {
      const { ledger } = world;
      const sockets = world.sockets.open;
      if (sockets.length === 0 || !world.serverIsUp) return;
      const { addresses, targetCount } = ledger;
      const address = targetCount + (b % (addresses.length - targetCount));
      world.traffic.receive(sockets[a % sockets.length], address, lengthOf(c));
    },
  },
  {
    name: "runs of strangers",
    theme: "strangers",
    weight: 15,
    run: (world, a, b, c) => {
      const { ledger } = world;
      const sockets = world.sockets.open;
      if (sockets.length === 0 || !world.serverIsUp) return;
      const sources = Array.from({ length: 1 + (c % 8) }, (_, i) => (b + i * 3) % ledger.addresses.length);
      const known = sources.filter((address) => !ledger.isName(address));
      world.traffic.receiveRuns(sockets[a % sockets.length], known, 1 + ((c >>> 8) % 5));
    },
  },
  {
    name: "deliver",
    theme: "lanes",
    weight: 150,
    run: (world, a, b, c) => {
      const link = someLink(world, a, isThere);
      if (link === undefined) return;
      const count = 1 + (c % (b & 2 ? 40 : 5_000));
      if (b & 1) world.deliverUp(link, count);
      else world.deliverDown(link, count);
    },
  },
  { name: "exchange", theme: "flows", weight: 60, run: (world) => world.exchange() },
  {
    name: "open",
    theme: "associations",
    weight: 25,
    run: (world, a, b) => {
      const host = world.clients[a % world.clients.length];
      if (host.isClosed) return;
      // Associations that do not expire leave room for others.
      const mayLast = world.settings.hasLasting && host.open.length < world.settings.maxAssociations / 2;
      world.openAssociation(host, !(mayLast && b % 4 === 0));
    },
  },
  {
    name: "close",
    theme: "associations",
    weight: 15,
    run: (world, a, b) => {
      const host = world.clients[a % world.clients.length];
      if (host.isClosed || host.open.length === 0) return;
      world.closeAssociation(host, host.open[b % host.open.length]);
    },
  },
  { name: "pass ms", theme: "time", weight: 60, run: (world, a) => world.advance(a % 100, true) },
  { name: "pass s", theme: "time", weight: 15, run: (world, a) => world.advance(a % 12_000, true) },
  { name: "pass min", theme: "time", weight: 1, run: (world, a) => world.advance(a % 400_000, true) },
  { name: "freeze ms", theme: "time", weight: 20, run: (world, a) => world.advance(a % 300, false) },
  { name: "freeze s", theme: "time", weight: 5, run: (world, a) => world.advance(a % 25_000, false) },
  {
    name: "oversleep",
    theme: "time",
    weight: 2,
    run: (world, a) => world.oversleep(a % (a & 1 ? 400_000 : 20_000)),
  },
  {
    name: "stall",
    theme: "lanes",
    weight: 15,
    run: (world, a, b) => {
      const link = someLink(world, a, isThere);
      if (link === undefined) return;
      if (b & 1) link.up.isStalled = true;
      if (b & 2) link.down.isStalled = true;
    },
  },
  {
    name: "unstall",
    theme: "lanes",
    weight: 15,
    run: (world, a) => {
      const link = someLink(world, a, (one) => one.up.isStalled || one.down.isStalled);
      if (link === undefined) return;
      link.up.isStalled = false;
      link.down.isStalled = false;
    },
  },
  {
    // Bytes in flight are lost or not; each end learns of it now, later, or only when its heartbeats fail.
    name: "cut",
    theme: "lanes",
    weight: 12,
    run: (world, a, b) => {
      const link = someLink(world, a, isThere);
      if (link === undefined) return;
      if (b & 1) link.up.clear();
      if (b & 2) link.down.clear();
      link.isCut = true;
      link.clientLoses = (b & 4) > 0;
      link.serverLoses = (b & 8) > 0;
      if ((b & 0x30) === 0x30) {
        world.loseClientSide(link);
        world.loseServerSide(link);
      } else if (b & 0x10) world.loseClientSide(link);
      else if (b & 0x20) world.loseServerSide(link);
    },
  },
  {
    // One end closes, or learns that the other has; bytes that were sent before still arrive.
    name: "half-close",
    theme: "lanes",
    weight: 6,
    run: (world, a, b) => {
      const link = someLink(world, a, (one) => isThere(one) && !one.isCut);
      if (link === undefined) return;
      if (b & 1) world.loseClientSide(link);
      else world.loseServerSide(link);
    },
  },
  {
    name: "change the network",
    theme: "lanes",
    weight: 3,
    run: (world, a) => {
      const host = world.clients[a % world.clients.length];
      if (!host.isClosed) world.changeNetwork(host);
    },
  },
  {
    // A client reads nothing for a while on some lane, or its way back is full.
    name: "stall a client",
    theme: "lanes",
    weight: 4,
    run: (world, a) => {
      for (const link of world.links) {
        if (isThere(link) && link.client.index === a % world.clients.length) link.down.isStalled = true;
      }
    },
  },
  {
    name: "hear of a loss",
    theme: "lanes",
    weight: 25,
    run: (world, a, b) => {
      const link = someLink(world, a, (one) => one.clientLoses || one.serverLoses);
      if (link === undefined) return;
      if (link.clientLoses && (b & 1 || !link.serverLoses)) world.loseClientSide(link);
      else world.loseServerSide(link);
    },
  },
  {
    name: "connect",
    theme: "lanes",
    weight: 60,
    run: (world, a, b) => {
      const link = someLink(world, a, (one) => world.isPending(one));
      if (link === undefined) return;
      if (!world.serverIsUp || b % 8 === 0) {
        world.refuseConnect(link);
        return;
      }
      link.isSlow = b % 4 === 1;
      world.completeConnect(link);
    },
  },
  {
    name: "welcome",
    theme: "lanes",
    weight: 3,
    run: (world, a) => {
      world.isWelcoming = a % 4 > 0;
    },
  },
  {
    name: "resolve",
    theme: "names",
    weight: 20,
    run: (world, a, b) => {
      const { queries, ledger } = world;
      if (queries.length === 0) return;
      const at = a % queries.length;
      const { name } = queries[at];
      const found = b % 8 === 0 ? [] : world.answers[name];
      const addresses = found.map((address) => ledger.addresses[address]);
      if (b % 8 === 1) addresses.unshift(makeAddress("10.9.9.9", 53)!);
      world.resolve(at, addresses, found);
    },
  },
  {
    name: "name moves",
    theme: "names",
    weight: 2,
    run: (world, a, b) => {
      const name = a % world.ledger.targetCount;
      if (!world.ledger.isName(name)) return;
      const candidates = world.ledger.answersFor(name);
      world.answers[name] = [candidates[b % candidates.length]];
    },
  },
  {
    name: "kill server",
    theme: "ends",
    weight: 1,
    run: (world, _a, b) => {
      if (world.serverIsUp) world.killServer();
      if (b & 1) world.startServer();
    },
  },
  {
    name: "close server",
    theme: "ends",
    weight: 1,
    run: (world, _a, b) => {
      if (world.serverIsUp) world.closeServer();
      if (b & 1) world.startServer();
    },
  },
  {
    name: "start server",
    theme: "ends",
    weight: 5,
    run: (world) => {
      if (!world.serverIsUp) world.startServer();
    },
  },
  {
    name: "end client",
    theme: "ends",
    weight: 1,
    run: (world, a) => {
      const host = world.clients[a % world.clients.length];
      if (!host.isClosed) world.closeClient(host);
    },
  },
  {
    name: "start client",
    theme: "ends",
    weight: 3,
    run: (world, a) => {
      const host = world.clients[a % world.clients.length];
      if (host.isClosed) world.startClient(host.index);
    },
  },
  {
    // A capsule that the client may have sent before, or that a faulty client sends, between two of its batches.
    name: "repeat to server",
    theme: "lies",
    weight: 6,
    run: (world, a, b, c) => {
      const link = someLyingLink(world, a);
      if (link === undefined) return;
      const { core } = link.client;
      const contexts = core.contexts.address.length;
      const context = contexts === 0 ? 2 : core.contexts.id[c % contexts];
      const { open } = link.client;
      const association = open.length === 0 ? -1 : open[c % open.length];
      const id = association < 0 ? 0 : core.wireId(association);
      if (b % 4 === 0) link.up.append(encodeCompressionClose(context));
      else if (b % 4 === 1 && id > 0) link.up.append(encodeAssociationClose(id, "done"));
      else if (b % 4 === 2 && id > 0) {
        link.up.append(encodeAssociationOpen(id, sourceOf(link.client.flows[association])));
      } else link.up.append(encodeCompressionAck(1 + 2 * (c % 64)));
    },
  },
  {
    name: "repeat to client",
    theme: "lies",
    weight: 6,
    run: (world, a, b, c) => {
      const link = someLyingLink(world, a);
      if (link === undefined) return;
      const { core } = link.client;
      const contexts = core.contexts.address.length;
      const context = contexts === 0 ? 2 : core.contexts.id[c % contexts];
      const { open } = link.client;
      const id = open.length === 0 ? 0 : core.wireId(open[c % open.length]);
      if (b % 4 === 0) link.down.append(encodeCompressionClose(context));
      else if (b % 4 === 1) link.down.append(encodeAssociationClose(Math.max(1, id), "idle"));
      else if (b % 4 === 2) {
        const kind = UNREACHABLE_KINDS[c % UNREACHABLE_KINDS.length];
        link.down.append(encodeUnreachable(context, kind, 1_280));
      } else link.down.append(encodeCompressionAck(context));
    },
  },
  {
    // An impossible RECEIPT: counts ahead and behind, lanes that do not exist, any clock and age.
    name: "lying receipt",
    theme: "lies",
    weight: 12,
    run: (world, a, b, c) => {
      const link = someLyingLink(world, a);
      if (link === undefined) return;
      const pipe = b & 1 ? link.up : link.down;
      pipe.append(lyingReceipt(b >>> 1, c));
    },
  },
  {
    name: "unreachable",
    theme: "associations",
    weight: 10,
    run: (world, a, b, c) => {
      const { ledger } = world;
      const sockets = world.sockets.open;
      if (sockets.length === 0) return;
      const address = ledger.addresses[b % ledger.addresses.length];
      if (ledger.isName(b % ledger.addresses.length)) return;
      const kind = UNREACHABLE_KINDS[c % UNREACHABLE_KINDS.length];
      world.server.handleUnreachable(world.now, sockets[a % sockets.length], address, kind, 1_280);
      world.drainServer();
    },
  },
  {
    name: "socket fails",
    theme: "associations",
    weight: 2,
    run: (world, a) => {
      const sockets = world.sockets.open;
      if (sockets.length > 0) world.failSocket(sockets[a % sockets.length]);
    },
  },
  {
    // A stranger connects and sends nothing, or nonsense.
    name: "foreign connection",
    theme: "ends",
    weight: 5,
    run: (world, a, b) => {
      if (!world.serverIsUp) return;
      const connection = world.server.handleAccept(world.now);
      world.foreign.push(connection);
      if (a & 1) {
        const bytes = new Uint8Array(1 + (b % 64)).fill(a >>> 8);
        world.server.handleStream(world.now, connection, bytes, 0, bytes.length);
      }
      world.drainServer();
    },
  },
  {
    name: "foreign connection ends",
    theme: "ends",
    weight: 3,
    run: (world, a) => {
      if (world.foreign.length === 0) return;
      const [connection] = world.foreign.splice(a % world.foreign.length, 1);
      world.server.handleDisconnected(world.now, connection);
      world.drainServer();
    },
  },
  { name: "agree", theme: "time", weight: 4, run: (world) => bringToAgreement(world) },
];
