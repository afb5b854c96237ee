import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { expect, it } from "vitest";
import { ReceivedDatagrams, ROW_INTS } from "../../src/core/session/received-datagrams.ts";
import { makeAddress } from "../../src/wire/socket-address.ts";
import { Network } from "./network.ts";

const BATCH = 64;
const STRIDE = 2048;

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void;

it.each([64, 1200])("neither end retains memory after a million datagrams of %i bytes", (size) => {
  const network = new Network({ server: { permits: () => true } });
  network.start();
  const { client, server } = network;
  const association = client.openAssociation(network.now, undefined, false);
  const target = makeAddress("192.0.2.1", 53)!;
  network.send(association, "192.0.2.1:53", "first");
  network.settle();

  const rows = new Int32Array(BATCH * ROW_INTS);
  for (let i = 0; i < BATCH; i++) {
    rows[i * ROW_INTS + 1] = i * STRIDE;
    rows[i * ROW_INTS + 2] = size;
  }
  const received = new ReceivedDatagrams(new Uint8Array(BATCH * STRIDE), target, rows);
  let arrived = 0;
  const run = (count: number) => {
    for (let sent = 0; sent < count; sent += BATCH) {
      client.handleDatagrams(network.now, association, received, 0, BATCH, target);
      const bytes = client.pollTransmit(network.now, 0)!;
      for (let at = 0; at < bytes.length; ) {
        at = server.handleStream(network.now, 0, bytes, at, bytes.length);
        arrived += server.outgoing.count;
      }
      client.handleTransmitted(0);
    }
  };
  run(200_000);
  arrived = 0;
  collect();
  const before = process.memoryUsage().heapUsed;
  run(1_000_000);
  collect();
  expect(arrived).toBe(1_000_000);
  expect(process.memoryUsage().heapUsed - before).toBeLessThan(1_000_000);
});
