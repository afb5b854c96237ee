import type { TunnelServer } from "../../../src/core/server/server.ts";
import { ReceivedDatagrams, ROW_INTS } from "../../../src/core/session/received-datagrams.ts";
import { formatAddress } from "../../../src/wire/socket-address.ts";
import type { Ledger } from "../ledger.ts";
import { SHORTEST_PAYLOAD } from "../ledger.ts";
import type { ClientHost } from "./link.ts";
import type { ServerSockets } from "./server-sockets.ts";

/** For datagrams that applications send singly, in turn. */
const DSCPS = [0, 18, 46];

/** The ends that datagrams enter. */
interface Ends {
  readonly ledger: Ledger;
  readonly sockets: ServerSockets;
  readonly server: TunnelServer;
  /** What the server's clock shows, and the clients'. */
  readonly now: number;
  readonly clientNow: number;
  readonly trace: ((line: string) => void) | undefined;
  drainClient(host: ClientHost): void;
  drainServer(): void;
}

/** What applications send to the clients, and targets to the server: datagrams singly, or several in one call. */
export class Traffic {
  readonly #ends: Ends;
  readonly #rowData = new Uint8Array(65_536);
  readonly #rowAddresses = new Uint8Array(4_096);
  readonly #rows: ReceivedDatagrams;

  constructor(ends: Ends) {
    this.#ends = ends;
    this.#rows = new ReceivedDatagrams(this.#rowData, this.#rowAddresses, new Int32Array(ROW_INTS * 64));
  }

  /** An application sends to one of the addresses. @returns the datagram's number */
  send(host: ClientHost, association: number, address: number, length: number): number {
    const { ledger, clientNow, trace } = this.#ends;
    const number = ledger.stampUp(host.flows[association], address, length);
    const to = ledger.addresses[address];
    trace?.(`client ${host.index} sends ${number} of association ${association} to ${formatAddress(to)}`);
    host.core.handleDscp(clientNow, association, DSCPS[number % DSCPS.length]);
    host.core.handleDatagram(clientNow, association, ledger.payload, 0, length, to, 0, to.length);
    this.#ends.drainClient(host);
    return number;
  }

  /** The same for several in one call. */
  sendRun(host: ClientHost, association: number, address: number, count: number): void {
    const { ledger, clientNow, trace } = this.#ends;
    const to = ledger.addresses[address];
    for (let row = 0; row < count; row++) {
      ledger.stampUp(host.flows[association], address, SHORTEST_PAYLOAD + row);
      this.#setRow(row, SHORTEST_PAYLOAD + row, 0, to.length);
    }
    trace?.(`client ${host.index} sends ${count} of association ${association} to ${formatAddress(to)}`);
    host.core.handleDatagrams(clientNow, association, this.#rows, 0, count, to);
    this.#ends.drainClient(host);
  }

  /** A datagram from one of the addresses arrives at a socket of the server. @returns its number */
  receive(association: number, address: number, length: number): number {
    const { ledger, sockets, server, now, trace } = this.#ends;
    const number = ledger.stampDown(sockets.flows[association], address, length);
    const from = ledger.addresses[address];
    trace?.(`server's association ${association} gets ${number} from ${formatAddress(from)}`);
    server.handleDatagram(now, association, ledger.payload, 0, length, from);
    this.#ends.drainServer();
    return number;
  }

  /** The same for several in one call, in runs of one source. */
  receiveRuns(association: number, addresses: readonly number[], runLength: number): void {
    const { ledger, sockets, server, now, trace } = this.#ends;
    const flow = sockets.flows[association];
    let row = 0;
    let addressOffset = 0;
    for (const address of addresses) {
      const from = ledger.addresses[address];
      this.#rowAddresses.set(from, addressOffset);
      for (let i = 0; i < runLength; i++, row++) {
        ledger.stampDown(flow, address, SHORTEST_PAYLOAD + row);
        this.#setRow(row, SHORTEST_PAYLOAD + row, addressOffset, from.length);
      }
      addressOffset += from.length;
    }
    trace?.(`server's association ${association} gets ${row} from ${addresses.length} sources`);
    server.handleDatagrams(now, association, this.#rows, 0, row);
    this.#ends.drainServer();
  }

  #setRow(row: number, length: number, addressOffset: number, addressLength: number): void {
    const offset = row * 256;
    this.#rowData.set(this.#ends.ledger.payload.subarray(0, length), offset);
    this.#rows.rows.set([0, offset, length, addressOffset, addressLength, 0], row * ROW_INTS);
  }
}
