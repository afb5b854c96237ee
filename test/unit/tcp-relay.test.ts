import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { connect, createServer, type Socket } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { relayTcp } from "../../src/node/tcp-relay.ts";

const opened: Socket[] = [];

/** A connection on loopback: its two ends. */
async function makePair(): Promise<readonly [Socket, Socket]> {
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const [[far], near] = await Promise.all([
    once(server, "connection") as Promise<[Socket]>,
    connect({ host: "127.0.0.1", port, allowHalfOpen: true }),
  ]);
  server.close();
  opened.push(near, far);
  for (const socket of [near, far]) socket.on("error", () => {});
  return [near, far];
}

/** Two peers with the relay's sockets between them. */
async function makeRelay(halfOpenIdleMs?: number) {
  const [client, near] = await makePair();
  const [far, target] = await makePair();
  relayTcp(near, far, halfOpenIdleMs);
  return { client, near, far, target };
}

/** All that a socket reads up to its end, or the code of the error that ended it. */
async function heard(socket: Socket): Promise<string> {
  const pieces: Buffer[] = [];
  try {
    for await (const piece of socket.iterator({ destroyOnReturn: false })) pieces.push(piece as Buffer);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code!;
  }
  return Buffer.concat(pieces).toString();
}

/** Whether the peer of a socket that has read a FIN sent a reset afterwards: then it cannot be written to. */
async function isReset(socket: Socket): Promise<boolean> {
  return new Promise((done) =>
    socket.write("x", (error) => done((error as NodeJS.ErrnoException)?.code === "EPIPE")),
  );
}

const closed = (...sockets: Socket[]) =>
  Promise.all(sockets.map((socket) => socket.closed || once(socket, "close")));

afterEach(() => {
  for (const socket of opened.splice(0)) socket.destroy();
});

describe("relayTcp", () => {
  it("passes a FIN on and leaves the other direction open, whichever end it comes from", async () => {
    for (const first of ["client", "target"] as const) {
      const { near, far, ...peers } = await makeRelay();
      const second = first === "client" ? "target" : "client";
      peers[first].end("question");
      expect(await heard(peers[second])).toBe("question");
      peers[second].end("answer");
      expect(await heard(peers[first])).toBe("answer");
      await closed(near, far);
    }
  });

  it("passes on data and a FIN received before it started", async () => {
    const [client, near] = await makePair();
    const [far, target] = await makePair();
    client.end("early");
    target.end();
    far.resume();
    await Promise.all([once(far, "end"), once(near, "readable")]);
    relayTcp(near, far);
    expect(await Promise.all([heard(target), heard(client)])).toEqual(["early", ""]);
    await closed(near, far);
  });

  it.each(["client", "target"] as const)("passes on a reset by the %s, also after a FIN", async (first) => {
    for (const hasEnded of [false, true]) {
      const { near, far, ...peers } = await makeRelay();
      const second = first === "client" ? "target" : "client";
      peers[first].write("x");
      await once(peers[second].resume(), "data");
      if (hasEnded) {
        peers[second].end();
        await once(peers[first].resume(), "end");
      }
      const outcome = heard(peers[second]);
      peers[first].resetAndDestroy();
      expect(await outcome).toBe("ECONNRESET");
      await closed(near, far);
    }
  });

  it("resets the other end when one is destroyed, although its peer had sent a FIN", async () => {
    const { client, near, far, target } = await makeRelay();
    client.end();
    await once(target.resume(), "end");
    near.destroy();
    await closed(near, far);
    expect(await isReset(target)).toBe(true);
  });

  it("closes both when one end is lost in the turn of the loop in which its FIN is passed on", async () => {
    const { client, near, far } = await makeRelay();
    client.end();
    await once(near, "end");
    expect(far.writableFinished).toBe(false);
    near.destroy();
    await closed(near, far);
  });

  it("resets both when one end has sent a FIN and nothing is received for the idle time", async () => {
    const { client, near, far, target } = await makeRelay(50);
    client.end("x");
    await once(target, "readable");
    await closed(near, far);
    expect(await isReset(target)).toBe(true);
  });

  it("resets both when the peer of a half-open connection reads nothing for the idle time", async () => {
    const { client, near, far, target } = await makeRelay(50);
    client.pause().end("x");
    // More than the kernel and the relay hold.
    const size = 32 * 1024 * 1024;
    target.end(Buffer.alloc(size));
    await closed(near, far);
    expect((await heard(client)).length).toBeLessThan(size);
  });

  it("does not limit the idle time of a connection that is open both ways", async () => {
    const { client, near, far, target } = await makeRelay(50);
    expect([near.timeout, far.timeout]).toEqual([undefined, undefined]);
    client.end("x");
    target.end("y");
    expect(await Promise.all([heard(client), heard(target)])).toEqual(["y", "x"]);
  });

  it("resets the other end when one was lost before it started", async () => {
    const [, near] = await makePair();
    const [far, target] = await makePair();
    near.destroy();
    relayTcp(near, far);
    await closed(near, far);
    expect(await heard(target)).toBe("ECONNRESET");
  });
});
