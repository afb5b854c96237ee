// A TCP relay that represents the path of lanes: argv[2] is its port on 127.0.0.1, argv[3] and argv[4] are the address it connects to,
// argv[5] is the delay of each direction in milliseconds.
//
// Commands are lines on stdin, each answered with what it was applied to; "busiest" is the connection that carried most bytes to the target
// in the last half second:
//   stall busiest              nothing arrives any more, in either direction
//   kill busiest               both ends get a reset
//   throttle busiest N         N bytes per second in each direction
//   most N                     further connections than N at a time are refused
//   strip                      takes q=1 out of requests: the target is a server that has no receipts
import { createConnection, createServer } from "node:net";
import { createInterface } from "node:readline";

const [port, host, targetPort, delayMs] = [
  process.argv[2],
  process.argv[3],
  process.argv[4],
  process.argv[5],
];
const connections = new Set();
let most = Number.POSITIVE_INFINITY;
let refused = 0;
let strips = false;

/** Carries one direction: each piece arrives after the delay, in order. */
class Pipe {
  isStalled = false;
  bytesPerMs = Number.POSITIVE_INFINITY;
  recent = 0;
  #freeAt = 0;

  constructor(from, to) {
    from.on("data", (bytes) => {
      this.recent += bytes.length;
      const now = performance.now();
      this.#freeAt = Math.max(now, this.#freeAt) + bytes.length / this.bytesPerMs;
      // The sender waits while the path holds more than a tenth of a second.
      if (this.#freeAt - now > 100) {
        from.pause();
        setTimeout(() => this.isStalled || from.resume(), this.#freeAt - now - 100);
      }
      setTimeout(
        () => {
          if (this.isStalled || to.destroyed) return;
          // A request arrives in one piece, and may be the second on its connection.
          const isRequest = strips && bytes.subarray(0, 4).toString() === "GET ";
          to.write(isRequest ? Buffer.from(bytes.toString("latin1").replace(", q=1", ""), "latin1") : bytes);
        },
        this.#freeAt - now + Number(delayMs),
      );
      if (this.isStalled) from.pause();
    });
    for (const event of ["end", "close", "error"]) from.on(event, () => to.destroy());
  }
}

createServer((client) => {
  if (connections.size >= most) {
    refused += 1;
    console.log(`refused ${refused}`);
    client.destroy();
    return;
  }
  const target = createConnection(Number(targetPort), host);
  for (const socket of [client, target]) socket.setNoDelay();
  const connection = { client, target, up: new Pipe(client, target), down: new Pipe(target, client) };
  connections.add(connection);
  console.log(`connections ${connections.size}`);
  client.on("close", () => connections.delete(connection));
}).listen(Number(port), "127.0.0.1", () => console.log("listens"));

setInterval(() => {
  for (const { up } of connections) up.recent /= 2;
}, 500);

for await (const line of createInterface({ input: process.stdin })) {
  const [command, , rate] = line.split(" ");
  if (command === "most") most = Number(line.split(" ")[1]);
  else if (command === "strip") strips = true;
  else {
    const [busiest] = [...connections].sort((a, b) => b.up.recent - a.up.recent);
    for (const pipe of [busiest.up, busiest.down]) {
      if (command === "stall") pipe.isStalled = true;
      if (command === "throttle") pipe.bytesPerMs = Number(rate) / 1000;
    }
    if (command === "kill") for (const socket of [busiest.client, busiest.target]) socket.resetAndDestroy();
  }
  console.log(`done ${line}`);
}
