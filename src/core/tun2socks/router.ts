import type { IpPacket } from "../../wire/ip/ip-packet.ts";
import { PROTOCOL_TCP, type PROTOCOL_UDP } from "../../wire/ip/ip-packet.ts";
import { readUint16 } from "../../wire/network-order.ts";
import type { Tun2SocksOptions } from "./options.ts";
import type { PacketCounters } from "./packet-counters.ts";
import { ROUTE_COUNT, ROUTE_DROP, ROUTE_REJECT, routeOf } from "./rules.ts";

/** Chooses the route of a packet by the rules and by the routes that are down. Counts packets without a route. */
export class Router {
  readonly #options: Tun2SocksOptions;
  readonly #counters: PacketCounters;
  readonly #isDown = new Uint8Array(ROUTE_COUNT);

  constructor(options: Tun2SocksOptions, counters: PacketCounters) {
    this.#options = options;
    this.#counters = counters;
  }

  setUp(route: number, isUp: boolean): void {
    this.#isDown[route] = isUp ? 0 : 1;
  }

  /**
   * @param payload  offset of a UDP payload, which ends at `end`; rules look for DNS queries there
   * @returns the route; ROUTE_REJECT also for a route that is down
   */
  choose(
    protocol: typeof PROTOCOL_TCP | typeof PROTOCOL_UDP,
    bytes: Uint8Array,
    { transport, destination, addressBytes }: IpPacket,
    payload: number,
    end: number,
  ): number {
    const { rules, tcpRoute, udpRoute } = this.#options;
    const counters = this.#counters;
    const port = readUint16(bytes, transport + 2);
    const otherwise = protocol === PROTOCOL_TCP ? tcpRoute : udpRoute;
    const route = routeOf(rules, protocol, bytes, destination, addressBytes, port, payload, end, otherwise);
    if (route === ROUTE_DROP) counters.drop("rule_drop");
    else if (route === ROUTE_REJECT) counters.drop("rule_reject");
    else if (this.#isDown[route] === 1) {
      counters.drop("route_down");
      return ROUTE_REJECT;
    }
    return route;
  }
}
