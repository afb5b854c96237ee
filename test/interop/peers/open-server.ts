import type { Socket as UdpSocket } from "node:dgram";
import { afterAll, beforeAll } from "vitest";
import type { UdpServer } from "../../../src/node/handles.ts";
import { startUdpServer } from "../../support/start.ts";
import { startUdpEcho } from "../../support/udp-echo.ts";

/** A udp-server without a key and an echo, shared by the tests of a suite. */
export interface OpenServer {
  /** Ports of 127.0.0.1. */
  readonly port: string;
  readonly echoPort: number;
}

export function useOpenServer(): OpenServer {
  let server: UdpServer;
  let echo: UdpSocket;
  beforeAll(async () => {
    echo = await startUdpEcho();
    server = await startUdpServer({ listen: ["127.0.0.1:0"], allow: ["127.0.0.1/32"] });
  });
  afterAll(async () => {
    echo.close();
    await server.close();
  });
  return {
    get port() {
      return server.address.listen[0].split(":")[1];
    },
    get echoPort() {
      return echo.address().port;
    },
  };
}
