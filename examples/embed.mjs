// Runs both ends in one program and sends a datagram there and back: node examples/embed.mjs, after npm run build.
import { randomBytes } from "node:crypto";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { startUdpLocal, startUdpServer } from "underpass";

const echo = createSocket("udp4");
echo.on("message", (data, { port, address }) => echo.send(data, port, address));
echo.bind(0, "127.0.0.1");
await once(echo, "listening");

const psk = randomBytes(32);
const server = await startUdpServer({ listen: ["127.0.0.1:0"], psk, allow: ["127.0.0.1/32"] });
const local = await startUdpLocal({
  server: server.address.listen[0],
  psk,
  forwards: [{ listen: "127.0.0.1:0", target: `127.0.0.1:${echo.address().port}` }],
});
await once(local, "session-up");

const app = createSocket("udp4");
app.send("hello", Number(local.address.forwards[0].listen.split(":")[1]), "127.0.0.1");
const [answer] = await once(app, "message");
console.log(`${answer}, by ${local.address.forwards[0].listen}:`, local.stats());

app.close();
echo.close();
await local.close();
await server.close();
