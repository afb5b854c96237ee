import type { LatencyClass } from "../../wire/latency-class.ts";
import type { Tcp } from "../stream/tcp.ts";
import type { NativeModule } from "./native-module.ts";
import type { UdpIo } from "./udp-io.ts";

/** How an endpoint does its I/O. */
export interface Io {
  readonly udp: UdpIo;
  readonly tcp: Tcp;
  /** Sockets and streams on descriptors; undefined if the system offers none. */
  readonly native: NativeModule | undefined;
  /** Class of sockets without their own. */
  readonly latency: LatencyClass;
}

export type IoKind = "native" | "plain";
