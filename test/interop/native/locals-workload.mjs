// Answers from several local addresses through unbound sockets of the native module argv[2]: IPv4, IPv6, link-local IPv6
// and addresses that are removed. sanitized.test.ts runs it in a network namespace with these addresses. Prints one JSON
// object.
import { execFileSync } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { createRequire } from "node:module";

const native = createRequire(import.meta.url)(process.argv[2]);
const [arenaBytes, rowCount, addressBytes, , errorRows] = native.udpSizes();
const arena = new Uint8Array(arenaBytes);
const rows = new Int32Array(rowCount * 6);
const addresses = new Uint8Array(addressBytes);

const RUN = 8;
const answers = new Int32Array(RUN * 7);
const payload = new Uint8Array(RUN * 1000).fill(0x41);
/** Whether the reply is a run of datagrams in one send. */
let isRun = false;
/** @type {number[]} */
const locals = [];
let lastSource = new Uint8Array(0);
let dropped = 0;
const onBatch = (/** @type {number} */ count) => {
  for (let i = 0; i < count; i++) {
    const [socket, , , address, addressLength, local] = rows.subarray(i * 6, i * 6 + 6);
    if (local === 0) continue;
    locals.push(local);
    lastSource = addresses.slice(address, address + addressLength);
    answer(socket, lastSource, local);
  }
};
native.udpSetup(arena, rows, addresses, onBatch, new Int32Array(errorRows * 9), () => {});

/** @type {(socket: number, to: Uint8Array, local: number) => void} */
function answer(socket, to, local) {
  const count = isRun ? RUN : 1;
  for (let i = 0; i < count; i++) answers.set([socket, 0, 0, i * 1000, 1000, 0, local], i * 7);
  dropped += native.udpSend(payload, answers, count, to, payload);
}

/** @type {(family: 4 | 6) => number} */
const openAny = (family) => {
  const any = new Uint8Array(family === 4 ? 7 : 19);
  any[0] = family === 4 ? 1 : 4;
  return native.udpOpen(any, false, 1 << 20, 1 << 20, true);
};
const servers = { 4: openAny(4), 6: openAny(6) };

/**
 * A client bound to `own` and connected to `host`, so that it receives answers from there alone.
 * @type {(family: 4 | 6, own: string, host: string) => Promise<import("node:dgram").Socket>}
 */
async function connected(family, own, host) {
  const client = createSocket(family === 4 ? "udp4" : "udp6");
  client.bind(0, own);
  await once(client, "listening");
  client.connect(native.udpPort(servers[family]), host);
  await once(client, "connect");
  return client;
}

const ip = (/** @type {string} */ command) => execFileSync("ip", command.split(" "));
/** @type {Record<string, string>} */
const heard = {};
const CASES = /** @type {const} */ ([
  ["IPv4", 4, "10.9.0.1", "10.9.0.2"],
  ["IPv4, another", 4, "10.9.0.1", "10.9.0.3"],
  ["IPv6", 6, "fd99::1", "fd99::2"],
  ["IPv6, another", 6, "fd99::1", "fd99::3"],
  ["link-local", 6, "fe80::99:1%near0", "fe80::99:2%near0"],
  ["link-local on another interface", 6, "fe80::99:1%near1", "fe80::99:2%near1"],
]);
for (const [name, family, own, host] of CASES) {
  const client = await connected(family, own, host);
  for (isRun of [false, true]) {
    client.send("question");
    for (let i = 0; i < (isRun ? RUN : 1); i++) {
      const [answer, from] = await once(client, "message");
      heard[name] = `${answer.length} from ${from.address}`;
    }
  }
  client.close();
}

// Removes addresses that are in use: later answers leave from another address.
/** @type {Record<string, string>} */
const gone = {};
for (const [family, own, host, prefix] of /** @type {const} */ ([
  [4, "10.9.0.1", "10.9.0.2", 24],
  [6, "fd99::1", "fd99::2", 64],
])) {
  const client = createSocket(family === 4 ? "udp4" : "udp6");
  client.bind(0, own);
  await once(client, "listening");
  const ask = () => client.send("question", native.udpPort(servers[family]), host);
  /** @type {(count: number) => Promise<string>} */
  const sources = async (count) => {
    const found = new Set();
    for (let i = 0; i < count; i++) found.add((await once(client, "message"))[1].address);
    return [...found].join();
  };
  const remove = () => ip(`addr del ${host}/${prefix} dev near0`);
  const answerAgain = () => answer(servers[family], lastSource, locals[locals.length - 1]);
  isRun = false;
  ask();
  const before = await sources(1);
  remove();
  answerAgain();
  const singly = await sources(1);
  ip(`addr add ${host}/${prefix} dev near0${family === 6 ? " nodad" : ""}`);
  ask();
  const back = await sources(1);
  remove();
  isRun = true;
  answerAgain();
  gone[host] = [before, singly, back, await sources(RUN)].join(" ");
  client.close();
}
for (const server of Object.values(servers)) native.udpClose(server);
console.log(JSON.stringify({ heard, dropped, gone }));
