import type { Socket } from "node:dgram";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { UdpLocal, UdpServer } from "../../../src/node/handles.ts";
import { hasNativeIo } from "../../../src/node/io/io.ts";
import { loadNativeModule } from "../../../src/node/load-native-module.ts";
import { hostOf } from "../../support/hosts.ts";
import { startUdpLocal, startUdpServer } from "../../support/start.ts";

const native = loadNativeModule();

describe("an ongoing flow", () => {
  let echo: Socket;
  let application: Socket;
  let server: UdpServer;
  let local: UdpLocal;
  let port: number;

  beforeEach(async () => {
    echo = createSocket("udp4", (data, { port: from }) => echo.send(data, from, "127.0.0.1")).bind(
      0,
      "127.0.0.1",
    );
    application = createSocket("udp4").bind(0, "127.0.0.1");
    await Promise.all([once(echo, "listening"), once(application, "listening")]);
    server = await startUdpServer({ listen: ["127.0.0.1:0"], allow: ["127.0.0.0/8"] });
    local = await startUdpLocal({
      server: server.address.listen[0],
      listen: false,
      lanes: 1,
      forwards: [{ listen: "127.0.0.1:0", target: `127.0.0.1:${echo.address().port}` }],
    });
    port = Number(local.address.forwards[0].listen.split(":")[1]);
  });

  afterEach(async () => {
    application.close();
    echo.close();
    await local.close();
    await server.close();
    vi.restoreAllMocks();
  });

  async function exchange(text: string): Promise<string> {
    application.send(text, port, "127.0.0.1");
    const [answer] = await once(application, "message");
    return `${answer}`;
  }

  it("has exact counters in each of 300 round trips, on any path", async () => {
    const ends = hostOf("local") === "node" && hostOf("server") === "node" && hasNativeIo(undefined) ? 2 : 0;
    const given = ends > 0 ? vi.spyOn(native as Exclude<typeof native, Error>, "shortcutOut") : undefined;
    for (let i = 0; i < 300; i++) {
      expect(await exchange(`round trip ${i}`.padEnd(100))).toBe(`round trip ${i}`.padEnd(100));
    }
    const counts = { datagramsIn: 300, datagramsOut: 300, bytesIn: 30_000, bytesOut: 30_000 };
    await vi.waitFor(() => expect(local.stats()).toMatchObject(counts));
    await vi.waitFor(() => expect(server.stats()).toMatchObject(counts));
    expect(given?.mock.results.filter(({ value }) => value >= 0).length ?? 0).toBeGreaterThanOrEqual(ends);
  });

  it("loses nothing when larger bursts fill the connection", async () => {
    await exchange("first");
    const heard: string[] = [];
    application.on("message", (data) => heard.push(`${data}`.trimEnd()));
    for (let burst = 0; burst < 50; burst++) {
      for (let i = 0; i < 20; i++) application.send(`${burst} ${i}`.padEnd(1_200), port, "127.0.0.1");
      await vi.waitFor(() => expect(heard.length).toBe(20 * (burst + 1)), { interval: 1 });
    }
    expect(heard).toEqual(Array.from({ length: 1_000 }, (_, i) => `${Math.floor(i / 20)} ${i % 20}`));
  });
});
