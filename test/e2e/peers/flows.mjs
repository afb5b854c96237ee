// Two flows to the UDP echo at 127.0.0.1:argv[2] for argv[3] milliseconds: a call, 100 bytes every 20 ms, and bulk, 1,200 bytes every 2 ms.
// Prints "half" after half of the time and at the end {"call": {"sent", "answered", "twice"}, "bulk": the same}.
import { createSocket } from "node:dgram";
import { setTimeout as delay } from "node:timers/promises";

const [port, durationMs] = [Number(process.argv[2]), Number(process.argv[3])];
const begin = performance.now();

async function run(size, everyMs) {
  const answers = new Map();
  const udp = createSocket("udp4");
  udp.on("message", (bytes) => {
    const number = bytes.readUInt32BE();
    answers.set(number, (answers.get(number) ?? 0) + 1);
  });
  udp.on("error", () => {});
  let sent = 0;
  for (;;) {
    const elapsed = performance.now() - begin;
    if (elapsed >= durationMs) break;
    for (; sent * everyMs <= elapsed; sent++) {
      const bytes = Buffer.alloc(size, "x");
      bytes.writeUInt32BE(sent);
      udp.send(bytes, port, "127.0.0.1");
    }
    await delay(everyMs);
  }
  await delay(1_500);
  udp.close();
  const twice = [...answers.values()].filter((times) => times > 1).length;
  return { sent, answered: answers.size, twice };
}

setTimeout(() => console.log("half"), durationMs / 2);
const [call, bulk] = await Promise.all([run(100, 20), run(1_200, 2)]);
console.log(JSON.stringify({ call, bulk }));
