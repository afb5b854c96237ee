import type { Logger } from "../log.ts";
import type { System } from "../system.ts";
import type { RelayHost } from "../udp/fixed-forward.ts";
import type { Socks5ListenerOptions } from "./listener.ts";
import { Socks5Listener } from "./listener.ts";
import type { Socks5UdpOptions } from "./udp.ts";
import { Socks5Udp } from "./udp.ts";
import { parseUdpPorts } from "./udp-ports.ts";

/** Makes the UDP part of a SOCKS5 server. @param ports  a range, checked; undefined for any */
export function makeSocks5Udp(
  host: RelayHost,
  system: System,
  options: Omit<Socks5UdpOptions, "ports">,
  ports: string | undefined,
  log: Logger,
): Socks5Udp {
  return new Socks5Udp(
    host,
    system,
    { ...options, ports: ports === undefined ? undefined : parseUdpPorts(ports) },
    log,
  );
}

/** Makes the TCP part of a SOCKS5 server. */
export function makeSocks5Listener(options: Socks5ListenerOptions): Socks5Listener {
  return new Socks5Listener(options);
}
