// Sends one datagram through a SOCKS5 server and prints the answer: PROXY PORT TARGET PORT.
import { associate } from "./socks5-udp-client.mjs";

const [host, port, target, targetPort] = process.argv.slice(2);
const association = await associate({ host, port: Number(port) }, (payload, source) => {
  const ip = source[0] === 1 ? source.subarray(1, 5).join(".") : source.subarray(1, -2).toString("hex");
  console.log(`${payload} from ${ip}:${source.readUInt16BE(source.length - 2)}`);
  association.close();
});
association.send(Buffer.from("hello"), { host: target, port: Number(targetPort) });
