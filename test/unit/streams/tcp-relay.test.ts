import { once } from "node:events";
import type { Socket } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import type { RelayOptions } from "../../../src/host/stream/tcp-relay.ts";
import { relayTcp } from "../../../src/host/stream/tcp-relay.ts";
import { nodeLoop } from "../../../src/node/system.ts";
import { openPair, TCPS } from "./open-stream.ts";

const opened: Socket[] = [];

/** Everything that a socket reads up to its end, or the code of the error that ended it. */
async function heard(socket: Socket): Promise<string> {
  const pieces: Buffer[] = [];
  try {
    for await (const piece of socket.iterator({ destroyOnReturn: false })) pieces.push(piece as Buffer);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code!;
  }
  return Buffer.concat(pieces).toString();
}

/** Whether the peer of a socket that has read a FIN sent a reset afterwards, so that writing to it fails. */
async function isReset(socket: Socket): Promise<boolean> {
  return new Promise((done) =>
    socket.write("x", (error) => done((error as NodeJS.ErrnoException)?.code === "EPIPE")),
  );
}

afterEach(() => {
  for (const socket of opened.splice(0)) socket.destroy();
});

describe.each(TCPS)("relayTcp over %s streams", (_, tcp) => {
  async function makePairs() {
    const [{ stream: near, peer: client }, { stream: far, peer: target }] = [
      await openPair(tcp),
      await openPair(tcp),
    ];
    opened.push(client, target);
    return { near, far, client, target };
  }

  /** Two peers with the relay's streams between them. */
  async function makeRelay(options: RelayOptions = {}) {
    const pairs = await makePairs();
    const closed = new Promise<void>((onClosed) =>
      relayTcp(pairs.near, pairs.far, nodeLoop, { ...options, onClosed }),
    );
    return { ...pairs, closed };
  }

  it("passes a FIN on and leaves the other direction open, whichever end it comes from", async () => {
    for (const first of ["client", "target"] as const) {
      const { closed, ...peers } = await makeRelay();
      const second = first === "client" ? "target" : "client";
      peers[first].end("question");
      expect(await heard(peers[second])).toBe("question");
      peers[second].end("answer");
      expect(await heard(peers[first])).toBe("answer");
      await closed;
    }
  });

  it("passes on data and a FIN received before it started", async () => {
    const { near, far, client, target } = await makePairs();
    client.end("early");
    target.end();
    await new Promise((done) => setTimeout(done, 20));
    const closed = new Promise<void>((onClosed) => relayTcp(near, far, nodeLoop, { onClosed }));
    expect(await Promise.all([heard(target), heard(client)])).toEqual(["early", ""]);
    await closed;
  });

  it("carries much both ways at once, complete and in order, to ends that read slowly", async () => {
    const { client, target, closed } = await makeRelay();
    const sent = Buffer.alloc(24 * 1024 * 1024);
    for (let i = 0; i < sent.length; i += 997) sent[i] = i % 251;
    const read = async (socket: Socket) => {
      const pieces: Buffer[] = [];
      for await (const piece of socket.iterator({ destroyOnReturn: false })) {
        pieces.push(piece as Buffer);
        if (pieces.length % 50 === 0) await new Promise((done) => setTimeout(done, 1));
      }
      return Buffer.compare(Buffer.concat(pieces), sent);
    };
    client.end(sent);
    target.end(sent);
    expect(await Promise.all([read(client), read(target)])).toEqual([0, 0]);
    await closed;
  });

  it.each(["client", "target"] as const)("passes on a reset by the %s, also after a FIN", async (first) => {
    for (const hasEnded of [false, true]) {
      const { closed, ...peers } = await makeRelay();
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
      await closed;
    }
  });

  it("resets the other end when one is destroyed, although its peer had sent a FIN", async () => {
    const { client, near, target, closed } = await makeRelay();
    client.end();
    await once(target.resume(), "end");
    near.destroy();
    await closed;
    expect(await isReset(target)).toBe(true);
  });

  it("resets both if one end has sent a FIN and nothing is received for the idle time", async () => {
    const { client, target, closed } = await makeRelay({ halfOpenIdleMs: 50 });
    client.end("x");
    await once(target, "readable");
    await closed;
    expect(await isReset(target)).toBe(true);
  });

  it("resets both if the peer of a half-open connection reads nothing for the idle time", async () => {
    const { client, target, closed } = await makeRelay({ halfOpenIdleMs: 50 });
    client.pause().end("x");
    // More than the kernel and the relay can hold.
    const size = 32 * 1024 * 1024;
    target.end(Buffer.alloc(size));
    await closed;
    expect((await heard(client)).length).toBeLessThan(size);
  });

  it("does not limit the idle time of a connection that is open both ways, nor of a half-open one that is used", async () => {
    const { client, target, closed } = await makeRelay({ halfOpenIdleMs: 50 });
    let isOver = false;
    void closed.then(() => {
      isOver = true;
    });
    await new Promise((done) => setTimeout(done, 120));
    expect(isOver).toBe(false);
    client.end("x");
    target.resume();
    for (let i = 0; i < 12; i++) {
      target.write("y");
      await new Promise((done) => setTimeout(done, 10));
    }
    expect(isOver).toBe(false);
    target.end();
    expect(await heard(client)).toBe("y".repeat(12));
    await closed;
  });

  it("resets the other end if one was lost before it started", async () => {
    const { near, far, target } = await makePairs();
    near.destroy();
    const closed = new Promise<void>((onClosed) => relayTcp(near, far, nodeLoop, { onClosed }));
    await closed;
    expect(await heard(target)).toBe("ECONNRESET");
  });
});
