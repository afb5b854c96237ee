// UDP echo on port argv[2] of IPv4 and IPv6, on the addresses argv[3] and argv[4]. Prints {"port":N} when
// ready. "whoami", or "whoami TAG", is answered with the source that was seen: "192.0.2.1:5000", or "[2001:db8::1]:5000",
// then " TAG".
import { createSocket } from "node:dgram";
import { once } from "node:events";

const ipv4 = createSocket({ type: "udp4", recvBufferSize: 1 << 22 });
const ipv6 = createSocket({ type: "udp6", ipv6Only: true, recvBufferSize: 1 << 22 });

for (const socket of [ipv4, ipv6]) {
  socket.on("message", (payload, { address, port, family }) => {
    const asked = payload.length < 64 && /^whoami( .*)?$/.exec(payload.toString("latin1"));
    const source = family === "IPv6" ? `[${address}]:${port}` : `${address}:${port}`;
    socket.send(asked ? source + (asked[1] ?? "") : payload, port, address);
  });
}
const [port, ipv4Address, ipv6Address] = process.argv.slice(2);
ipv4.bind(Number(port), ipv4Address);
await once(ipv4, "listening");
ipv6.bind(ipv4.address().port, ipv6Address);
await once(ipv6, "listening");
console.log(JSON.stringify({ port: ipv4.address().port }));
