// The cores of one server and any number of clients in virtual time, without sockets or delays of a busy processor.
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const DIST = join(dirname(fileURLToPath(import.meta.url)), "../../dist");
/** @param {string} file @returns {Promise<any>} a module of the build, without types because the build may be missing */
const built = (file) => import(pathToFileURL(join(DIST, file)).href);
const { TunnelClient, TunnelServer, makeAddress } = await built("core/index.js");
const { resolveUdpServerOptions } = await built("node/options/udp-server.js");
const { resolveUdpLocalOptions } = await built("node/options/udp-local.js");
const { nodeCryptography } = await built("node/cryptography.js");

export const DEFAULTS = resolveUdpServerOptions({ listen: ["127.0.0.1:0"], psk: Buffer.alloc(32, 7) });
const LOCAL = resolveUdpLocalOptions({ server: "server.test:3456", psk: Buffer.alloc(32, 7) });
/** One-way delay. */
const LATENCY_MS = 25;
const PAYLOAD = Buffer.alloc(200, 1);

/** @param {object} bounds  options of udp-server that differ from the defaults */
function makeServer(bounds) {
  const { lingerS, idleTimeoutS, ...rest } = DEFAULTS;
  return new TunnelServer({
    ...rest,
    worker: undefined,
    crypto: nodeCryptography,
    permits: () => true,
    offersBind: true,
    lingerMs: lingerS * 1_000,
    idleTimeoutMs: idleTimeoutS * 1_000,
    ...bounds,
  });
}

/** @param {number} lanes */
function makeClient(lanes) {
  const { idleTimeoutS, activeIdleTimeoutS, latencyRules: _, ...rest } = LOCAL;
  return new TunnelClient({
    ...rest,
    lanes,
    ways: [{ authority: "server.test:3456", server: 0 }],
    crypto: nodeCryptography,
    handshakeTimeoutMs: DEFAULTS.handshakeTimeoutMs,
    idleTimeoutMs: idleTimeoutS * 1_000,
    activeIdleTimeoutMs: activeIdleTimeoutS * 1_000,
  });
}

/** Events by time; those of one time run in the order in which they were added. */
class Agenda {
  /** @type {{ at: number, order: number, run: () => void }[]} */
  #heap = [];
  #order = 0;

  get nextAt() {
    return this.#heap.length === 0 ? Number.POSITIVE_INFINITY : this.#heap[0].at;
  }

  /** @param {number} at @param {() => void} run */
  add(at, run) {
    const heap = this.#heap;
    const entry = { at, order: this.#order++, run };
    let slot = heap.length;
    while (slot > 0) {
      const parent = (slot - 1) >> 1;
      if (!isBefore(entry, heap[parent])) break;
      heap[slot] = heap[parent];
      slot = parent;
    }
    heap[slot] = entry;
  }

  take() {
    const heap = this.#heap;
    const first = heap[0];
    const last = /** @type {{ at: number, order: number, run: () => void }} */ (heap.pop());
    if (heap.length > 0) {
      let slot = 0;
      for (;;) {
        let child = 2 * slot + 1;
        if (child >= heap.length) break;
        if (child + 1 < heap.length && isBefore(heap[child + 1], heap[child])) child++;
        if (!isBefore(heap[child], last)) break;
        heap[slot] = heap[child];
        slot = child;
      }
      heap[slot] = last;
    }
    return first;
  }
}

/** @param {{ at: number, order: number }} one @param {{ at: number, order: number }} other */
function isBefore(one, other) {
  return one.at < other.at || (one.at === other.at && one.order < other.order);
}

/**
 * @typedef {{ client: any, wires: Map<number, Wire>, armedAt: number, associations: number[] }} User
 * @typedef {{ user: User, lane: number, connection: number, isOpen: boolean }} Wire  one connection
 */

export class Simulation {
  now = 1_000;
  /** Time that the server has computed on this machine, in milliseconds. */
  serverMs = 0;
  /** Datagrams that targets and users received. */
  atTargets = 0;
  atUsers = 0;
  /** Whether targets answer. */
  echoes = true;
  /** @type {User[]} */
  users = [];

  #agenda = new Agenda();
  /** @type {Map<number, Wire>} */
  #wires = new Map();
  #serverArmedAt = Number.POSITIVE_INFINITY;
  #isInServer = false;

  /** @param {object} bounds  see {@link makeServer} */
  constructor(bounds = {}) {
    this.server = makeServer(bounds);
  }

  /** Calls the server, and counts its time. @template T @param {() => T} call @returns {T} */
  #timed(call) {
    const from = performance.now();
    try {
      return call();
    } finally {
      this.serverMs += performance.now() - from;
    }
  }

  /** Starts a client now. @param {number} lanes @returns {User} */
  addUser(lanes) {
    const client = makeClient(lanes);
    const user = { client, wires: new Map(), armedAt: Number.POSITIVE_INFINITY, associations: [] };
    this.users.push(user);
    client.start(this.now);
    this.#settleUser(user);
    return user;
  }

  /** Opens associations, each with some targets. @param {User} user @param {number} count @param {number} targets */
  openAssociations(user, count, targets) {
    for (let i = 0; i < count; i++) {
      const association = user.client.openAssociation(this.now, undefined, true);
      if (association >= 0) user.associations.push(association);
    }
    this.sendAll(user, targets);
  }

  /** Sends a datagram of each association to each of its targets. @param {User} user @param {number} targets */
  sendAll(user, targets) {
    for (const association of user.associations) {
      for (let target = 0; target < targets; target++) this.#send(user, association, target);
    }
    this.#settleUser(user);
  }

  /** @param {User} user @param {number} association */
  sendOne(user, association) {
    this.#send(user, association, 0);
    this.#settleUser(user);
  }

  /** @param {User} user @param {number} association @param {number} target */
  #send(user, association, target) {
    const address = makeAddress(`198.51.${100 + (association >> 8)}.${association & 255}`, 1_000 + target);
    user.client.handleDatagram(this.now, association, PAYLOAD, 0, PAYLOAD.length, address, 0, address.length);
  }

  /** Ends all connections, as a short network outage does. */
  cutAll() {
    this.#endAll(undefined);
  }

  /** Ends the server's process and starts another. @param {object} bounds  see {@link makeServer} */
  restartServer(bounds) {
    this.#endAll(bounds);
  }

  /** @param {object | undefined} newServer  bounds of the server that takes the place of this one */
  #endAll(newServer) {
    const wires = [...this.#wires.values()];
    for (const wire of wires) {
      if (newServer === undefined) this.#disconnectServer(wire);
      wire.isOpen = false;
    }
    this.#wires.clear();
    if (newServer !== undefined) {
      this.server = makeServer(newServer);
      this.#serverArmedAt = Number.POSITIVE_INFINITY;
    }
    this.#settleServer();
    for (const user of this.users) {
      for (const [lane] of user.wires) user.client.handleDisconnected(this.now, lane, new Error("cut"));
      user.wires.clear();
      this.#settleUser(user);
    }
  }

  /** Advances time, at most until `isDone`. @param {number} ms @param {() => boolean} isDone */
  advance(ms, isDone = () => false) {
    const end = this.now + ms;
    while (this.#agenda.nextAt <= end) {
      const { at, run } = this.#agenda.take();
      this.now = at;
      run();
      if (isDone()) return;
    }
    this.now = end;
  }

  /** Drops all clients and all data in flight, so that only the server is left. */
  dropUsers() {
    this.users = [];
    this.#wires.clear();
    this.#agenda = new Agenda();
  }

  /** @param {User} user */
  #settleUser(user) {
    const { client } = user;
    for (let output = client.pollOutput(); output !== undefined; output = client.pollOutput()) {
      if (output.kind === "connect") this.#connect(user, output.lane);
      else if (output.kind === "disconnect") this.#endByUser(user, output.lane);
    }
    while (client.takeReleased(this.now)) this.atUsers += client.received.count;
    for (const wire of user.wires.values()) this.#transmitUp(wire);
    for (let lane = client.pollReady(this.now); lane >= 0; lane = client.pollReady(this.now)) {
      const wire = user.wires.get(lane);
      if (wire !== undefined) this.#transmitUp(wire);
    }
    const at = client.nextTimeout();
    if (at >= user.armedAt || at === Number.POSITIVE_INFINITY) return;
    user.armedAt = at;
    this.#agenda.add(Math.max(at, this.now), () => {
      if (user.armedAt !== at) return;
      user.armedAt = Number.POSITIVE_INFINITY;
      client.handleTimeout(this.now);
      this.#settleUser(user);
    });
  }

  /** @param {User} user @param {number} lane */
  #connect(user, lane) {
    const wire = { user, lane, connection: -1, isOpen: true };
    user.wires.set(lane, wire);
    this.#later(wire, () => {
      wire.connection = this.#timed(() => this.server.handleAccept(this.now));
      this.#wires.set(wire.connection, wire);
      this.#settleServer();
      this.#later(wire, () => {
        user.client.handleConnected(this.now, lane);
        this.#settleUser(user);
      });
    });
  }

  /** @param {Wire} wire @param {() => void} run */
  #later(wire, run) {
    this.#agenda.add(this.now + LATENCY_MS, () => {
      if (wire.isOpen) run();
    });
  }

  /** @param {User} user @param {number} lane */
  #endByUser(user, lane) {
    const wire = user.wires.get(lane);
    if (wire === undefined) return;
    user.wires.delete(lane);
    this.#later(wire, () => {
      wire.isOpen = false;
      this.#disconnectServer(wire);
      this.#settleServer();
    });
  }

  /** @param {Wire} wire */
  #disconnectServer(wire) {
    if (wire.connection < 0 || !this.#wires.delete(wire.connection)) return;
    this.#timed(() => this.server.handleDisconnected(this.now, wire.connection));
  }

  /** @param {Wire} wire */
  #transmitUp(wire) {
    const { client } = wire.user;
    if (wire.connection < 0) return;
    for (let more = true; more; ) {
      const lent = client.pollTransmit(this.now, wire.lane);
      if (lent === undefined) return;
      const bytes = lent.slice();
      more = client.handleTransmitted(wire.lane);
      this.#later(wire, () => {
        for (let at = 0; at < bytes.length; ) {
          at = this.#timed(() =>
            this.server.handleStream(this.now, wire.connection, bytes, at, bytes.length),
          );
          this.#takeOutgoing();
        }
        this.#settleServer();
      });
    }
  }

  /** Delivers the server's datagrams to targets, which answer at once. */
  #takeOutgoing() {
    const { outgoing, contexts } = this.server;
    this.atTargets += outgoing.count;
    if (!this.echoes) return;
    const answers = Array.from({ length: outgoing.count }, (_, i) => [
      outgoing.association[i],
      contexts.target[outgoing.context[i]],
    ]);
    for (const [association, target] of answers) {
      this.#timed(() =>
        this.server.handleDatagram(this.now, association, PAYLOAD, 0, PAYLOAD.length, target),
      );
    }
  }

  #settleServer() {
    if (this.#isInServer) return;
    this.#isInServer = true;
    const { server } = this;
    while (this.#timed(() => server.takeReleased(this.now))) this.#takeOutgoing();
    for (let output = server.pollOutput(); output !== undefined; output = server.pollOutput()) {
      if (output.kind === "close") this.#endByServer(output.connection);
    }
    for (
      let connection = this.#timed(() => server.pollDirty(this.now));
      connection >= 0;
      connection = this.#timed(() => server.pollDirty(this.now))
    ) {
      this.#transmitDown(connection);
    }
    this.#isInServer = false;
    const at = server.nextTimeout();
    if (at >= this.#serverArmedAt || at === Number.POSITIVE_INFINITY) return;
    this.#serverArmedAt = at;
    this.#agenda.add(Math.max(at, this.now), () => {
      if (this.#serverArmedAt !== at || this.server !== server) return;
      this.#serverArmedAt = Number.POSITIVE_INFINITY;
      this.#timed(() => server.handleTimeout(this.now));
      this.#settleServer();
    });
  }

  /** @param {number} connection */
  #transmitDown(connection) {
    const wire = this.#wires.get(connection);
    for (let more = true; more; ) {
      const bytes = this.#timed(() => this.server.pollTransmit(this.now, connection)?.slice());
      if (bytes === undefined) return;
      more = this.#timed(() => this.server.handleTransmitted(connection));
      if (wire !== undefined) this.#carryDown(wire, bytes);
    }
  }

  /** @param {Wire} wire @param {Uint8Array} bytes */
  #carryDown(wire, bytes) {
    const { user, lane } = wire;
    this.#later(wire, () => {
      if (user.wires.get(lane) !== wire) return;
      for (let at = 0; at < bytes.length; ) {
        at = user.client.handleStream(this.now, lane, bytes, at, bytes.length);
        this.atUsers += user.client.received.count;
      }
      this.#settleUser(user);
    });
  }

  /** @param {number} connection */
  #endByServer(connection) {
    const wire = this.#wires.get(connection);
    if (wire === undefined) return;
    this.#transmitDown(connection);
    this.#disconnectServer(wire);
    this.#later(wire, () => {
      wire.isOpen = false;
      if (wire.user.wires.get(wire.lane) !== wire) return;
      wire.user.wires.delete(wire.lane);
      wire.user.client.handleDisconnected(this.now, wire.lane, new Error("closed by the server"));
      this.#settleUser(wire.user);
    });
  }
}
