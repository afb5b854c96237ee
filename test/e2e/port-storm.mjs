// Sends one datagram to argv[2]:argv[3] from each of argv[4] source ports, one after the other. Prints {"sent"}.
import { createSocket } from "node:dgram";

const [host, port, count] = process.argv.slice(2);
const FIRST_PORT = 10_000;
let sent = 0;
for (let i = 0; i < Number(count); i++) {
  const udp = createSocket("udp4");
  await new Promise((done) => {
    udp.once("error", () => udp.close(done));
    udp.bind(FIRST_PORT + i, () => {
      udp.send("x", Number(port), host, (error) => {
        if (error === null) sent++;
        udp.close(done);
      });
    });
  });
}
console.log(JSON.stringify({ sent }));
