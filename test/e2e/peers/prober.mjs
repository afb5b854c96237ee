// Sends "whoami N" to port argv[2] of argv[3] (default 127.0.0.1) every 10 ms and prints a line for each answer:
// {"sentAtMs", "receivedAtMs", "source"}; times by CLOCK_MONOTONIC, source as the target saw it.
import { createSocket } from "node:dgram";

const now = () => Number(process.hrtime.bigint()) / 1e6;
const port = Number(process.argv[2]);
const host = process.argv[3] ?? "127.0.0.1";
const sentAtMs = new Map();
let number = 0;

const udp = createSocket("udp4");
udp.on("message", (answer) => {
  const [source, tag] = answer.toString().split(" ");
  console.log(JSON.stringify({ sentAtMs: sentAtMs.get(Number(tag)), receivedAtMs: now(), source }));
});
// There may be no route for a while.
udp.on("error", () => {});
setInterval(() => {
  number += 1;
  sentAtMs.set(number, now());
  udp.send(`whoami ${number}`, port, host);
}, 10);
