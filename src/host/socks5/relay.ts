import { AddressIndex } from "../../core/address-index.ts";
import type { ReceivedDatagrams } from "../../core/session/received-datagrams.ts";
import type { LatencyClass } from "../../wire/latency-class.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { addressPort, copyAddress, formatHost } from "../../wire/socket-address.ts";
import { UDP_HEADER_FRAGMENT, UdpHeader, writeUdpHeader } from "../../wire/socks5.ts";
import type { FlowEnd } from "../io/shortcuts.ts";
import type { UdpIo, UdpSocket, UdpSocketOptions } from "../io/udp-io.ts";
import { Remote } from "../io/udp-io.ts";
import type { Relay, RelayHost } from "../udp/fixed-forward.ts";
import { SharedLatency } from "../udp/shared-latency.ts";

/** After this much silence, a source may lose its place to another source with its IP. */
const SILENCE_MS = 10_000;
const NEVER = Number.NEGATIVE_INFINITY;
const NONE = -1;

/** What a UDP ASSOCIATE grants its IP: one source may send, and has its own association. */
interface Place {
  association: number;
  /** True if the request named the source's port. */
  isNamed: boolean;
  /** The source; undefined until one has sent, unless the request named it. */
  remote: Remote | undefined;
  heardAt: number;
}

/**
 * A UDP port of the SOCKS5 server (RFC 1928 §7), for one client or shared by all. It accepts only the IPs of its clients, and from each IP
 * as many sources as it has UDP ASSOCIATEs. If a request names no port, the client's source is learned from its first datagram: a new
 * source gets a place that no source has yet. If there is none and the IP has one client, that client's port has changed, and its
 * association continues. If the IP has several clients, the new source replaces the one that has been silent longest, with a new
 * association, so that it receives no answers to the old source. IPs are compared without their zones.
 */
export class Socks5Relay implements Relay {
  readonly socket: UdpSocket;
  readonly family: 4 | 6;
  readonly #host: RelayHost;
  readonly #latency: SharedLatency;
  readonly #isStrict: boolean;
  /** By IP text, in the order of their requests. */
  readonly #places = new Map<string, Place[]>();
  readonly #placeOf: (Place | undefined)[] = [];
  /** (0, source) → association. */
  readonly #bySource: AddressIndex;
  /** The place of the previous datagram. */
  #last: Place | undefined;
  readonly #header = new UdpHeader();
  /** UDP headers by context slot, and the generation of the slot that each is for. */
  readonly #headers: (Uint8Array | undefined)[] = [];
  readonly #generations: number[] = [];

  /**
   * @param isStrict  true if only the port that a client named or first sent from is accepted
   * @param seed      a random 32-bit number
   */
  constructor(
    host: RelayHost,
    io: UdpIo,
    listen: Pick<UdpSocketOptions, "family" | "host" | "port">,
    isStrict: boolean,
    seed: number,
    onBindError: (error: Error) => void,
  ) {
    this.#host = host;
    this.family = listen.family;
    this.#isStrict = isStrict;
    this.#bySource = new AddressIndex(seed);
    this.#latency = new SharedLatency(host.latency, (latency) => this.socket.setLatency(latency));
    this.socket = io.open({
      ...listen,
      reusePort: false,
      tellsLocal: true,
      onDatagrams: (received, first, end) => {
        const now = host.turn.now();
        for (let row = first; row < end; row++) this.#handleDatagram(now, received, row);
        host.turn.schedule();
      },
      onBindError,
    });
  }

  setLatency(association: number, latency: LatencyClass): void {
    this.#latency.set(association, latency);
  }

  /** The port that the relay is bound to; 0 before that. */
  get port(): number {
    return this.socket.port;
  }

  close(): void {
    this.socket.close();
  }

  /**
   * Admits a client.
   *
   * @param client  its IP, and the port that it will send from, or 0
   * @returns a function that removes it, or undefined if there are too many associations
   */
  admit(client: AddressBytes): (() => void) | undefined {
    const now = this.#host.turn.now();
    this.#host.turn.schedule();
    const association = this.#host.core.openAssociation(now, client, false);
    if (association < 0) return undefined;
    const place: Place = { association, isNamed: false, remote: undefined, heardAt: NEVER };
    const key = formatHost(client);
    const places = this.#places.get(key);
    if (places === undefined) this.#places.set(key, [place]);
    else places.push(place);
    this.#enter(place);
    if (addressPort(client) !== 0) this.#giveName(now, place, client);
    return () => this.#leave(key, place);
  }

  // Relay

  deliver(
    association: number,
    context: number,
    data: Uint8Array,
    offsets: Int32Array,
    lengths: Int32Array,
    first: number,
    end: number,
  ): number {
    const remote = this.#placeOf[association]?.remote;
    if (remote === undefined) return end - first;
    return this.socket.sendAll(this.#headerOf(context), data, offsets, lengths, first, end, remote);
  }

  flowEnd(association: number, context: number): FlowEnd | undefined {
    const remote = this.#placeOf[association]?.remote;
    return remote && { socket: this.socket, remote, header: this.#headerOf(context) };
  }

  handleCarried(time: number, association: number, isOut: boolean): void {
    const place = this.#placeOf[association];
    if (isOut && place !== undefined) place.heardAt = Math.max(place.heardAt, time);
  }

  /** The UDP header for a context's address. */
  #headerOf(context: number): Uint8Array {
    const { contexts } = this.#host.core;
    let header = this.#headers[context];
    if (header === undefined || this.#generations[context] !== contexts.generation[context]) {
      const address = contexts.address[context]!;
      header = new Uint8Array(3 + address.length);
      writeUdpHeader(header, 0, address);
      this.#headers[context] = header;
      this.#generations[context] = contexts.generation[context];
    }
    return header;
  }

  sourceOf(association: number): AddressBytes | undefined {
    return this.#placeOf[association]?.remote?.address;
  }

  /** Not called: core ends only associations that may expire. */
  forget(): void {}

  // Datagrams of clients

  #handleDatagram(now: number, received: ReceivedDatagrams, row: number): void {
    const { core } = this.#host;
    const { data } = received;
    const offset = received.offset(row);
    const length = received.length(row);
    const header = this.#header;
    const headerLength = header.read(data, offset, offset + length);
    let place = this.#knownPlace(received, row);
    // Sources are learned only from valid SOCKS5 datagrams.
    if (place === undefined && headerLength >= 0) place = this.#placeForNew(now, received, row);
    if (place === undefined) {
      this.#drop("wrong_source", received, row);
      return;
    }
    if (headerLength < 0) {
      this.#drop(headerLength === UDP_HEADER_FRAGMENT ? "fragment" : "malformed", received, row);
      return;
    }
    place.heardAt = now;
    core.handleDatagram(
      now,
      place.association,
      data,
      offset + headerLength,
      length - headerLength,
      header.addresses,
      header.addressOffset,
      header.addressLength,
    );
  }

  /** Drops a datagram, of a client or a stranger, that cannot be used; its target is unknown. */
  #drop(reason: "wrong_source" | "fragment" | "malformed", received: ReceivedDatagrams, row: number): void {
    const { drops, tap } = this.#host.core.counters;
    drops[reason]++;
    if (tap === undefined) return;
    const at = received.addressOffset(row);
    const source = copyAddress(received.addresses, at, received.addressLength(row));
    const { data } = received;
    tap.record(false, reason, NONE, source, undefined, data, received.offset(row), received.length(row));
  }

  #knownPlace(received: ReceivedDatagrams, row: number): Place | undefined {
    const { addresses } = received;
    const at = received.addressOffset(row);
    const length = received.addressLength(row);
    let place = this.#last;
    const last = place?.remote?.address;
    if (last?.length !== length || !this.#host.datapath.areSame(last, 0, addresses, at, length)) {
      place = this.#placeOf[this.#bySource.find(0, addresses, at, length)];
      if (place === undefined) return undefined;
      this.#last = place;
    }
    // Answers come from the local address to which the source sends now.
    const { address, local } = place!.remote!;
    if (local !== received.local(row)) this.#setRemote(place!, new Remote(address, received.local(row)));
    return place;
  }

  #placeForNew(now: number, received: ReceivedDatagrams, row: number): Place | undefined {
    const address = copyAddress(received.addresses, received.addressOffset(row), received.addressLength(row));
    const places = this.#places.get(formatHost(address));
    if (places === undefined) return undefined;
    let place = places.find(({ remote }) => remote === undefined);
    if (place === undefined) {
      if (this.#isStrict) return undefined;
      if (places.length === 1) [place] = places;
      else {
        place = idlest(places);
        if (place === undefined || now - place.heardAt < SILENCE_MS) return undefined;
        this.#renew(now, place);
      }
    }
    this.#move(place, new Remote(address, received.local(row)));
    return place;
  }

  // Places

  #giveName(now: number, place: Place, source: AddressBytes): void {
    const other = this.#placeOf[this.#bySource.find(0, source, 0, source.length)];
    if (other !== undefined) {
      // The client that named or used this port before is gone, or has lost the port.
      this.#renew(now, other);
      other.isNamed = false;
      other.heardAt = NEVER;
    }
    place.isNamed = true;
    this.#move(place, new Remote(source));
  }

  /** Removes the client's place. Places without a named port are not tied to a client, so the idlest of these goes. */
  #leave(key: string, own: Place): void {
    const places = this.#places.get(key)!;
    const place = own.isNamed ? own : idlest(places)!;
    places.splice(places.indexOf(place), 1);
    if (places.length === 0) this.#places.delete(key);
    this.#move(place, undefined);
    this.#end(place);
  }

  #move(place: Place, remote: Remote | undefined): void {
    if (place.remote !== undefined) this.#bySource.remove(place.association);
    this.#setRemote(place, remote);
    if (remote !== undefined) this.#bySource.add(place.association, 0, remote.address);
    this.#last = undefined;
  }

  #setRemote(place: Place, remote: Remote | undefined): void {
    place.remote = remote;
    this.#host.core.handleMoved?.(place.association);
  }

  /** Removes the source of a place, and gives the place a new association. */
  #renew(now: number, place: Place): void {
    const address = place.remote?.address;
    this.#move(place, undefined);
    this.#end(place);
    // This stays within the limit, because one was just closed.
    place.association = this.#host.core.openAssociation(now, address, false);
    this.#enter(place);
  }

  #enter(place: Place): void {
    this.#placeOf[place.association] = place;
    this.#host.register(place.association, this);
    this.#latency.set(place.association, this.#host.latency);
  }

  #end({ association }: Place): void {
    this.#placeOf[association] = undefined;
    this.#host.register(association, undefined);
    this.#latency.remove(association);
    this.#host.core.closeAssociation(this.#host.turn.now(), association);
    this.#host.turn.schedule();
  }
}

/** The place without a named port whose source has been silent longest. */
function idlest(places: readonly Place[]): Place | undefined {
  let found: Place | undefined;
  for (const place of places) {
    if (!place.isNamed && (found === undefined || place.heardAt < found.heardAt)) found = place;
  }
  return found;
}
