// Sends "whoami N" to 127.0.0.1:argv[2] every 50 ms and prints a line for each answer:
// {"sentAtMs", "receivedAtMs", "source"}; times by CLOCK_MONOTONIC, source as the target saw it.
import { createSocket } from "node:dgram";

const now = () => Number(process.hrtime.bigint()) / 1e6;
const port = Number(process.argv[2]);
const sentAtMs = new Map();
let number = 0;

const udp = createSocket("udp4");
udp.on("message", (answer) => {
  const [source, tag] = answer.toString().split(" ");
  console.log(JSON.stringify({ sentAtMs: sentAtMs.get(Number(tag)), receivedAtMs: now(), source }));
});
setInterval(() => {
  number += 1;
  sentAtMs.set(number, now());
  udp.send(`whoami ${number}`, port, "127.0.0.1");
}, 50);
