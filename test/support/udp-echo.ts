import type { Socket } from "node:dgram";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { expect } from "vitest";
import type { UdpLocal } from "../../src/node/handles.ts";
import type { UdpLocalOptions } from "../../src/node/options/udp-local.ts";
import { startUdpLocal } from "./start.ts";

/** A UDP echo on a free port of 127.0.0.1. */
export async function startUdpEcho(): Promise<Socket> {
  const echo = createSocket("udp4");
  echo.on("message", (data, { port, address }) => echo.send(data, port, address));
  echo.bind(0, "127.0.0.1");
  await once(echo, "listening");
  return echo;
}

/** Sends one datagram of each size through the first forward of a udp-local and expects it back. */
export async function expectForwardEchoes(local: UdpLocal, sizes: readonly number[]): Promise<void> {
  const app = createSocket("udp4");
  const port = Number(local.address.forwards[0].listen.split(":")[1]);
  try {
    for (const size of sizes) {
      const payload = Buffer.alloc(size, size & 255);
      app.send(payload, port, "127.0.0.1");
      const [data] = await once(app, "message");
      expect(data.equals(payload)).toBe(true);
    }
  } finally {
    app.close();
  }
}

/**
 * Starts a udp-local with a forward to `echo`, waits for its session, and expects datagrams of these sizes back.
 *
 * @throws its first error, if the session does not come up
 */
export async function expectTunnelEchoes(
  echo: Socket,
  options: UdpLocalOptions,
  sizes: readonly number[] = [1_200],
): Promise<void> {
  const target = `127.0.0.1:${echo.address().port}`;
  const local = await startUdpLocal({ forwards: [{ listen: "127.0.0.1:0", target }], ...options });
  try {
    // Later errors do not matter.
    local.on("error", () => {});
    await once(local, "session-up");
    await expectForwardEchoes(local, sizes);
  } finally {
    await local.close();
  }
}
