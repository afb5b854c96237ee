// Sends datagrams to a UDP echo, one after the other, and compares what comes back byte by byte. argv[2] is JSON: {forward: {host, port}}
// or {socks5: {host, port}, targets: [{host, port}, ...]}, with sizes: [bytes, ...] and repeat: how often each target is asked which source
// it sees. Prints {sizes: {"1200": "same", ...}, answered: N, sources: [each source that a target saw]}.
import { createSocket } from "node:dgram";
import { isIP } from "node:net";
import { seededIntegers } from "../../support/seeded-integers.mjs";
import { associate, encodeAddress } from "./socks5/socks5-udp-client.mjs";

const DEADLINE_MS = 3000;
const { forward, socks5, targets = [forward], sizes, repeat } = JSON.parse(process.argv[2]);

let arrived = () => {};

async function openForward() {
  const udp = createSocket({ type: isIP(forward.host) === 6 ? "udp6" : "udp4", recvBufferSize: 1 << 22 });
  udp.on("message", (payload, { port }) => arrived(payload, port === forward.port));
  return { send: (payload) => udp.send(payload, forward.port, forward.host), close: () => udp.close() };
}

async function openSocks5() {
  const known = targets
    .filter(({ host }) => isIP(host))
    .map((target) => encodeAddress(target).toString("hex"));
  const anyName = known.length < targets.length;
  return associate(socks5, (payload, source) => {
    arrived(payload, anyName || known.includes(source.toString("hex")));
  });
}

const path = await (forward ? openForward() : openSocks5());

/** The answer to one datagram, or a word that names the failure. */
function exchange(payload, target) {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve("no answer"), DEADLINE_MS);
    arrived = (answer, fromTarget) => {
      clearTimeout(timer);
      resolve(fromTarget ? Buffer.from(answer) : "answer from elsewhere");
    };
    path.send(payload, target);
  });
}

/** Bytes that differ from offset to offset and from size to size. */
function pattern(size) {
  const payload = Buffer.alloc(size);
  const random = seededIntegers(size);
  for (let i = 0; i < size; i++) payload[i] = random(256);
  return payload;
}

const verdicts = {};
for (const size of sizes) {
  const payload = pattern(size);
  const answer = await exchange(payload, targets[0]);
  if (typeof answer === "string") verdicts[size] = answer;
  else if (answer.equals(payload)) verdicts[size] = "same";
  else verdicts[size] = `${answer.length} bytes that differ`;
}

const sources = new Set();
let answered = 0;
for (let i = 0; i < repeat; i++) {
  for (const target of targets) {
    const answer = await exchange(Buffer.from("whoami"), target);
    if (typeof answer === "string") continue;
    answered += 1;
    sources.add(answer.toString());
  }
}
path.close();
console.log(JSON.stringify({ sizes: verdicts, answered, sources: [...sources] }));
