import { once } from "node:events";
import { connect } from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { UdpLocal, UdpServer } from "../../../src/node/handles.ts";
import { startUdpLocal } from "../../../src/node/udp-local.ts";
import { startUdpServer } from "../../../src/node/udp-server.ts";
import type { Recording } from "../peers/recorder.ts";
import { Recorder, replay } from "../peers/recorder.ts";

const KEY = Buffer.alloc(32, "k");

const portOf = (server: UdpServer) => Number(server.address.listen[0].split(":")[1]);

describe("a handshake recorded on the way to one server", () => {
  let servers: UdpServer[];
  let recorder: Recorder;
  let local: UdpLocal;
  const start = (port = 0, workers = 1) =>
    startUdpServer({ listen: [`127.0.0.1:${port}`], psk: KEY, workers });

  beforeEach(async () => {
    servers = [await start()];
    recorder = new Recorder(() => portOf(servers[0]));
    local = await startUdpLocal({
      ...{ server: await recorder.listen(), psk: KEY, lanes: 2 },
      forwards: [{ listen: "127.0.0.1:0", target: "127.0.0.1:9" }],
    });
    await once(local, "session-up");
    await expect.poll(() => servers[0].stats().lanes).toBe(2);
  });

  afterEach(async () => {
    await local.close();
    recorder.close();
    await Promise.all(servers.map((server) => server.close()));
  });

  /** Replays whole connections and single requests, and expects that none opens or joins a session. */
  async function expectNothing(server: UdpServer, recordings: Recording[]): Promise<void> {
    const sessions: string[] = [];
    for (const name of ["session-up", "session-resumed"] as const) {
      server.on(name, () => sessions.push(name));
    }
    const lanes = server.stats().lanes;
    const single = recordings.flatMap((pieces) => pieces.map((piece) => [piece]));
    const spliced = recordings.flatMap((a) => recordings.map((b) => [...a, ...b]));
    for (const pieces of [...recordings, ...single, ...spliced]) {
      for (const status of await replay(portOf(server), pieces)) {
        expect(["400", "401", "404", "nothing"]).toContain(status);
      }
    }
    expect(sessions).toEqual([]);
    expect(server.stats().lanes).toBe(lanes);
  }

  it("opens nothing there while the session lives", async () => {
    const { recordings } = recorder;
    expect(recordings.flat().filter((piece) => piece.includes("c=:")).length).toBeGreaterThanOrEqual(2);
    await expectNothing(servers[0], recordings);
  });

  it("opens nothing at another server with the same key and any number of threads", async () => {
    for (const workers of [1, 2]) {
      const other = await start(0, workers);
      servers.push(other);
      await expectNothing(other, recorder.recordings);
    }
  });

  it("opens nothing at a restarted server on the same port", async () => {
    const { recordings } = recorder;
    const port = portOf(servers[0]);
    await local.close();
    await servers[0].close();
    servers = [await start(port)];
    await expectNothing(servers[0], recordings);
  });

  it("opens nothing at another server, even with a ticket of that server in it", async () => {
    const other = await start();
    servers.push(other);
    const [request] = recorder.recordings[0];
    const socket = connect(portOf(other), "127.0.0.1");
    socket.write(request);
    const [answer] = await once(socket, "data");
    socket.destroy();
    const ticket = /c=(:[^:]*:)/.exec(String(answer))![1];
    const shown = recorder.recordings.flat().filter((piece) => piece.includes("c=:"));
    const spliced = shown.map((piece) =>
      Buffer.from(piece.toString("latin1").replace(/c=:[^:]*:/, `c=${ticket}`), "latin1"),
    );
    await expectNothing(
      other,
      spliced.map((piece) => [piece]),
    );
  });
});
