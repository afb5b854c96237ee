import { describe, expect, it } from "vitest";
import { Network } from "../network.ts";
import { KEY, KEYS, open, payloads, started } from "../session/started.ts";

describe("a handshake", () => {
  it("succeeds when both ends have the key", () => {
    const network = started(KEYS);
    network.send(open(network), "192.0.2.1:53", "x");
    network.settle();
    expect(payloads(network)).toEqual(["x"]);
  });

  it("gets the answer of an unknown page when the key is wrong or missing", () => {
    for (const psk of [undefined, new TextEncoder().encode("another key of sixteen bytes")]) {
      const network = new Network({ client: { psk }, server: { psk: KEY } });
      network.start();
      network.advance(50);
      expect(network.client.isUp).toBe(false);
      expect(network.server.counters.refused.bad_credentials).toBe(1);
      const failure = network.clientEvents.find(({ kind }) => kind === "disconnect");
      expect(failure).toMatchObject({ error: { code: "ERR_UPGRADE_REFUSED" } });
    }
  });

  it("fails for a client with a key if the server cannot prove that it has the same key", () => {
    const network = new Network({ client: { psk: KEY } });
    network.start();
    expect(network.client.isUp).toBe(false);
    const failure = network.clientEvents.find(({ kind }) => kind === "disconnect");
    expect(failure).toMatchObject({ error: { code: "ERR_SERVER_PROOF" } });
  });

  it("never reveals the key and never repeats a nonce", () => {
    const network = new Network(KEYS);
    network.client.start(network.now);
    network.client.pollOutput();
    network.client.handleConnected(network.now, 0);
    const text = new TextDecoder().decode(network.client.pollTransmit(network.now, 0));
    expect(text).not.toContain(new TextDecoder().decode(KEY));
    expect(text).not.toContain(Buffer.from(KEY).toString("base64"));
  });

  it("is cut off after 5 s", () => {
    const network = new Network();
    const connection = network.server.handleAccept(network.now);
    const slow = new TextEncoder().encode("GET / HTTP/1.1\r\n");
    network.server.handleStream(network.now, connection, slow, 0, slow.length);
    network.advance(4_900);
    expect(network.server.counters.refused.handshake_timeout).toBe(0);
    network.advance(400);
    expect(network.server.counters.refused.handshake_timeout).toBe(1);
  });
});
