import type { Socket } from "node:dgram";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { UdpLocal, UdpServer } from "../../src/node/handles.ts";
import { startUdpLocal, startUdpServer } from "../support/start.ts";

/** Answers from its own port, then from another port, then from its own port on another address. */
class ThreeMouths {
  readonly own = createSocket("udp4");
  readonly #otherPort = createSocket("udp4");
  readonly #otherHost = createSocket("udp4");

  async start(): Promise<number> {
    this.own.bind(0, "127.0.0.1");
    await once(this.own, "listening");
    const { port } = this.own.address();
    this.#otherPort.bind(0, "127.0.0.1");
    this.#otherHost.bind(port, "127.0.0.2");
    await Promise.all([once(this.#otherPort, "listening"), once(this.#otherHost, "listening")]);
    this.own.on("message", (_, remote) => {
      this.own.send("itself", remote.port, remote.address);
      this.#otherPort.send("another port", remote.port, remote.address);
      this.#otherHost.send("another host", remote.port, remote.address);
    });
    return port;
  }

  close(): void {
    for (const socket of [this.own, this.#otherPort, this.#otherHost]) socket.close();
  }
}

describe("a fixed forward whose server accepts every sender", () => {
  let server: UdpServer;
  let target: ThreeMouths;
  let targetPort: number;
  let local: UdpLocal | undefined;
  let application: Socket;
  let heard: string[];

  beforeEach(async () => {
    target = new ThreeMouths();
    targetPort = await target.start();
    server = await startUdpServer({
      listen: ["127.0.0.1:0"],
      filtering: "endpoint-independent",
      allow: ["127.0.0.0/8"],
    });
    application = createSocket("udp4").bind(0, "127.0.0.1");
    await once(application, "listening");
    heard = [];
    application.on("message", (data) => heard.push(`${data}`));
  });

  afterEach(async () => {
    application.close();
    await local?.close();
    await server.close();
    target.close();
  });

  /** The answers that the application gets through the forward, and the number of dropped datagrams from other sources. */
  async function ask(forward: { target: string; anyPort?: boolean }): Promise<[Set<string>, number]> {
    local = await startUdpLocal({
      server: server.address.listen[0],
      forwards: [{ listen: "127.0.0.1:0", ...forward }],
    });
    if (local.stats().sessions === 0) await once(local, "session-up");
    application.send("?", Number(local.address.forwards[0].listen.split(":")[1]), "127.0.0.1");
    const dropped = () => local!.stats().drops.foreign_source;
    await vi.waitUntil(() => heard.length + dropped() === 3, { timeout: 5_000 });
    return [new Set(heard), dropped()];
  }

  it("passes on its target's datagrams and counts all others as foreign_source", async () => {
    expect(await ask({ target: `127.0.0.1:${targetPort}` })).toEqual([new Set(["itself"]), 2]);
    // The client drops all of these; nothing else is lost.
    expect(local!.stats().drops.send_error).toBe(0);
  });

  it("also passes on datagrams from other ports of its target with anyPort", async () => {
    const expected = new Set(["itself", "another port"]);
    expect(await ask({ target: `127.0.0.1:${targetPort}`, anyPort: true })).toEqual([expected, 1]);
  });

  it("passes on datagrams from its port of the resolved address if its target is a name", async () => {
    const [answers, dropped] = await ask({ target: `localhost:${targetPort}` });
    // Only the server knows the resolved address, and this server accepts every sender.
    expect([answers, dropped]).toEqual([new Set(["itself", "another host"]), 1]);
  });
});
