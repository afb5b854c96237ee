// argv[3] UDP sockets, all sending to 127.0.0.1:argv[2]. For each line on stdin, every socket sends "whoami", and repeats it every 500 ms
// until it has an answer in this round. When all have one, or after 10 s, prints {"ports": [port or null per socket], "atMs"}: the source
// ports that the target saw, and when the last answer came, by CLOCK_MONOTONIC.
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";

const port = Number(process.argv[2]);
const count = Number(process.argv[3]);
let round = 0;
let ports = [];
let missing = 0;
let atMs = 0;

const sockets = [];
for (let i = 0; i < count; i++) {
  const udp = createSocket("udp4");
  udp.on("message", (answer) => {
    const [source, tag] = answer.toString().split(" ");
    if (Number(tag) !== round || ports[i] !== null) return;
    ports[i] = Number(source.slice(source.lastIndexOf(":") + 1));
    missing -= 1;
    atMs = Number(process.hrtime.bigint()) / 1e6;
  });
  udp.bind(0, "127.0.0.1");
  await once(udp, "listening");
  sockets.push(udp);
}

for await (const _ of createInterface({ input: process.stdin })) {
  round += 1;
  ports = Array(count).fill(null);
  missing = count;
  for (let tries = 0; tries < 20 && missing > 0; tries++) {
    const nextTry = delay(500);
    for (let i = 0; i < count; i++) {
      if (ports[i] === null) sockets[i].send(`whoami ${round}`, port, "127.0.0.1");
      if (i % 50 === 49) await delay(5); // The receiving socket's buffer is small; a burst of 1,000 would overrun it.
    }
    for (let waited = 0; waited < 25 && missing > 0; waited++) await delay(20);
    if (missing > 0) await nextTry;
  }
  console.log(JSON.stringify({ ports, atMs }));
}
process.exit();
