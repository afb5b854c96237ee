import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { ClientOutput } from "../../../src/core/client/client-parts.ts";
import { asciiBytes } from "../../../src/wire/http/http-head.ts";
import { encodeUpgradeResponse } from "../../../src/wire/http/upgrade.ts";
import { concat, cut, cutLengths } from "../../unit/cuts.ts";
import { Network } from "../network.ts";

describe("a client that receives interim responses", () => {
  const accepted = encodeUpgradeResponse(true, [], {
    nonce: new Uint8Array(16),
    session: new Uint8Array(16).fill(1),
    resumed: false,
    receipts: false,
    mac: undefined,
  });

  /** The client's outputs after these pieces arrive in answer to its request. */
  function outputsFor(pieces: readonly Uint8Array[]): ClientOutput[] {
    const { client } = new Network();
    const outputs: ClientOutput[] = [];
    const drain = () => {
      for (let output = client.pollOutput(); output !== undefined; output = client.pollOutput()) {
        if (output.kind !== "connect") outputs.push(output);
      }
    };
    client.start(0);
    drain();
    client.handleConnected(0, 0);
    for (const piece of pieces) {
      for (let at = 0; at < piece.length; ) at = client.handleStream(0, 0, piece, at, piece.length);
      drain();
    }
    return outputs;
  }

  it("skips them, however they are cut", () => {
    const interim = asciiBytes(
      "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\nLink: <\xe9>\n\nHTTP/1.1 102 x\r\n\r\n",
    );
    fc.assert(
      fc.property(cutLengths, (lengths) => {
        expect(outputsFor(cut(concat(interim, accepted), lengths))).toMatchObject([{ kind: "session-up" }]);
        expect(outputsFor(cut(interim, lengths))).toEqual([]);
      }),
      { seed: 92, numRuns: 200 },
    );
  });

  it("disconnects from a server that sends 17", () => {
    const interim = (count: number) => asciiBytes("HTTP/1.1 100 Continue\r\n\r\n".repeat(count));
    expect(outputsFor([concat(interim(16), accepted)])).toMatchObject([{ kind: "session-up" }]);
    expect(outputsFor([concat(interim(17), accepted)])).toMatchObject([
      { kind: "disconnect", error: { code: "ERR_HEAD_TOO_LARGE" } },
    ]);
  });

  it("names the status of a refusal in HTTP/1.0, which a proxy on the way may use", () => {
    expect(outputsFor([asciiBytes("HTTP/1.0 403 Forbidden\r\n\r\n")])).toMatchObject([
      { kind: "disconnect", error: { code: "ERR_UPGRADE_REFUSED", message: expect.stringContaining("403") } },
    ]);
  });
});
