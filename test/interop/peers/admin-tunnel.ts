import { silentLogger } from "../../../src/host/log.ts";
import type { Shown } from "../../../src/node/admin/admin-server.ts";
import { loadDashboard } from "../../../src/node/admin/dashboard.ts";
import type { UdpLocal, UdpServer } from "../../../src/node/handles.ts";
import { onEvents } from "../../../src/node/handles.ts";
import { startUdpLocal } from "../../../src/node/udp-local.ts";
import { startUdpServer } from "../../../src/node/udp-server.ts";
import { startUdpEcho } from "../../support/udp-echo.ts";

export const PSK = Buffer.from("0123456789abcdef0123456789abcdef");

/** A server, and a client with a forward to an echo. @param cleanups  receives functions that end them, to call in reverse order */
export async function openTunnel(
  cleanups: (() => unknown)[],
): Promise<{ readonly server: UdpServer; readonly local: UdpLocal }> {
  const echo = await startUdpEcho();
  cleanups.push(() => echo.close());
  const server = await startUdpServer({ listen: ["127.0.0.1:0"], psk: PSK, allow: ["127.0.0.0/8"] });
  cleanups.push(() => server.close());
  const local = await startUdpLocal({
    listen: false,
    server: server.address.listen[0],
    psk: PSK,
    forwards: [{ listen: "127.0.0.1:0", target: `127.0.0.1:${echo.address().port}` }],
    ageBudgetMs: 5_000,
  });
  cleanups.push(() => local.close());
  return { server, local };
}

/** An admin server for one end. */
export function shown(program: string, running: UdpLocal | UdpServer): Shown {
  return {
    program,
    version: "1.2.3",
    address: running.address,
    dashboard: loadDashboard(new URL("../../../dist/dashboard.html", import.meta.url)),
    stats: () => running.stats(),
    status: () => running.status(),
    flows: () => running.flows(),
    reasonAgainst: () => (running.stats().sessions > 0 ? undefined : "no session"),
    onEvent: (listener) => onEvents(running, listener),
    log: silentLogger,
    handleListenerFailed: (error) => running.emit("listener-failed", error),
  };
}
