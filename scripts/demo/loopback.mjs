// `npm run demo`: both ends and an echo target on this machine, with a key, and real datagrams through SOCKS5 and a fixed forward.
// Then the TCP connection is cut, and the session resumes with the same source ports; the server is killed and restarted, and a new
// session begins. Ends by itself after about ten seconds.
import { spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const PER_SECOND = 500;
const SECONDS_BEFORE = 2;
const SECONDS_RESUMED = 2;
const SECONDS_DOWN = 1;
const SECONDS_AFTER = 4;
/** Far longer than a lane's first attempt to reconnect takes. */
const SECONDS_TO_RESUME = 5;

if (!existsSync("dist/cli/udp-local.js")) {
  const { status } = spawnSync("node", ["scripts/build.mjs"], { stdio: "inherit" });
  if (status !== 0) process.exit(1);
}
const { startUdpLocal } = await import("../../dist/index.js");

const folder = mkdtempSync(join(tmpdir(), "underpass-demo-"));
const key = randomBytes(24).toString("base64");
const keyFile = join(folder, "psk");
writeFileSync(keyFile, key, { mode: 0o600 });
/** @type {import("node:child_process").ChildProcess | undefined} */
let server;
process.once("exit", () => {
  server?.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
});

/** Starts udp-server as its own process and waits until it is ready. @param {string} listen */
async function startServer(listen) {
  server = spawn(
    process.execPath,
    [
      "dist/cli/udp-server.js",
      "--listen",
      listen,
      "--psk-file",
      keyFile,
      "--allow",
      "127.0.0.0/8",
      "--log-format",
      "json",
    ],
    { stdio: ["ignore", "inherit", "pipe"] },
  );
  for await (const line of createInterface({ input: /** @type {any} */ (server.stderr) })) {
    const message = JSON.parse(line);
    if (message.ready !== undefined) return message.listen[0];
  }
  throw new Error("udp-server did not start");
}

/** @param {string} type */
const say = (type, text = "") => console.log(`${type.padEnd(8)} ${text}`);

const echo = createSocket("udp4");
const portsSeen = new Set();
echo.on("message", (data, { port }) => {
  portsSeen.add(port);
  echo.send(data, port, "127.0.0.1");
});
echo.bind(0, "127.0.0.1");
await once(echo, "listening");
const target = `127.0.0.1:${echo.address().port}`;
say("target", `a UDP echo on ${target}`);

const serverAddress = await startServer("127.0.0.1:0");
say("server", `udp-server on tcp ${serverAddress}, with a key`);

/** Between both ends, so that a connection can be cut while both ends live. @type {Set<import("node:net").Socket>} */
const carried = new Set();
const carrier = createServer((near) => {
  const far = connect(Number(serverAddress.split(":")[1]), "127.0.0.1");
  for (const [socket, other] of [
    [near, far],
    [far, near],
  ]) {
    carried.add(socket);
    socket.setNoDelay();
    socket.on("error", () => {});
    socket.once("close", () => {
      carried.delete(socket);
      other.destroy();
    });
    socket.pipe(other);
  }
});
carrier.listen(0, "127.0.0.1");
await once(carrier, "listening");
const carrierAddress = `127.0.0.1:${/** @type {import("node:net").AddressInfo} */ (carrier.address()).port}`;
say("carrier", `a TCP relay on ${carrierAddress}, that can be cut`);

const local = await startUdpLocal({
  server: carrierAddress,
  listen: "127.0.0.1:0",
  forwards: [{ listen: "127.0.0.1:0", target }],
  psk: Buffer.from(key),
});
const forward = local.address.forwards[0].listen;
say("local", `SOCKS5 on ${local.address.socks5}, and udp ${forward} -> ${target}`);
local.on("session-up", () => say("session", "up"));
local.on("session-down", () => say("session", "down; udp-local keeps trying"));
local.on("session-resumed", () => say("session", "resumed"));

/** Asks the SOCKS5 server for a UDP relay. @returns {Promise<{port: number, end: () => void}>} */
async function associate() {
  const socket = connect(Number(String(local.address.socks5).split(":")[1]), "127.0.0.1");
  socket.write(Buffer.from([5, 1, 0]));
  await once(socket, "data");
  socket.write(Buffer.from([5, 3, 0, 1, 0, 0, 0, 0, 0, 0]));
  const [reply] = await once(socket, "data");
  return { port: reply.readUInt16BE(8), end: () => socket.destroy() };
}

const relay = await associate();
const header = Buffer.from([0, 0, 0, 1, 127, 0, 0, 1, 0, 0]);
header.writeUInt16BE(echo.address().port, 8);

const counts = { sent: 0, socks: 0, forward: 0 };
const viaSocks = createSocket("udp4");
viaSocks.on("message", () => counts.socks++);
const viaForward = createSocket("udp4");
viaForward.on("message", () => counts.forward++);
const payload = Buffer.alloc(1200, "u");
const forwardPort = Number(forward.split(":")[1]);
const sender = setInterval(() => {
  for (let i = 0; i < PER_SECOND / 100; i++) {
    viaSocks.send(Buffer.concat([header, payload]), relay.port, "127.0.0.1");
    viaForward.send(payload, forwardPort, "127.0.0.1");
    counts.sent += 2;
  }
}, 10);

let last = { ...counts };
let lastDrops = 0;
const reporter = setInterval(() => {
  const { rttMs, drops } = local.stats();
  const total = Object.values(drops).reduce((sum, count) => sum + count, 0);
  const rtt = rttMs === undefined ? "-" : `${rttMs.toFixed(1)} ms`;
  say(
    "live",
    `sent ${counts.sent - last.sent}/s, back by SOCKS5 ${counts.socks - last.socks}/s, by forward ` +
      `${counts.forward - last.forward}/s, rtt ${rtt}, dropped ${total - lastDrops}/s`,
  );
  last = { ...counts };
  lastDrops = total;
}, 1000);

/** @param {number} seconds */
const wait = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));
/** Source ports that the target sees. */
const ports = () => [...portsSeen].sort().join(" and ");
await wait(SECONDS_BEFORE);
const portsBefore = ports();
say("target", `hears from ports ${portsBefore}`);
portsSeen.clear();
say("carrier", "TCP connection cut");
const resumed = new Promise((done) => local.once("session-resumed", () => done(true)));
for (const socket of carried) socket.destroy();
const hasResumed = (await Promise.race([resumed, wait(SECONDS_TO_RESUME)])) === true;
await wait(SECONDS_RESUMED);
const isSamePorts = ports() === portsBefore;
say("target", `hears from ports ${ports()}: ${isSamePorts ? "the same" : "OTHER ONES"}`);

say("server", "killed (kill -9)");
server?.kill("SIGKILL");
await wait(SECONDS_DOWN);
await startServer(serverAddress);
say("server", `started again on ${serverAddress}`);
const before = counts.forward + counts.socks;
await wait(SECONDS_AFTER);
clearInterval(sender);
clearInterval(reporter);
const hasRestarted = counts.forward + counts.socks > before && local.stats().sessions === 1;
say(
  "drops",
  JSON.stringify(Object.fromEntries(Object.entries(local.stats().drops).filter(([, count]) => count > 0))),
);
const isGood = hasResumed && isSamePorts && hasRestarted;
if (!hasResumed) say("result", "FAILED: the session did not resume");
else if (!isSamePorts) say("result", "FAILED: the target saw other source ports");
else if (!hasRestarted) say("result", "FAILED: no datagram came back after the restart");
else say("result", "UDP went through; the session resumed after the cut, and began anew after the restart");
relay.end();
viaSocks.close();
viaForward.close();
echo.close();
await local.close();
carrier.close();
server?.kill("SIGTERM");
if (server?.exitCode === null) await once(server, "exit");
process.exitCode = isGood ? 0 : 1;
