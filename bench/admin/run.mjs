// What --admin costs, and how quick its page is, beside 10,000 associations. Prints one line a figure; see docs/operate/operating.md.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";
import { flood, hold, startTarget } from "../load.mjs";
import { cpuNs, sleep, start, stop } from "../processes.mjs";
import { freeTcpPort, freeUdpPort, ready } from "../subjects.mjs";

const { values } = parseArgs({
  options: {
    only: { type: "string", default: "cost,scrape,frames" },
    rounds: { type: "string", default: "5" },
    associations: { type: "string", default: "12500" },
  },
});
const TOKEN = "a-token-of-enough-characters";
const RATE = 40_000;
const rounds = Number(values.rounds);
const associations = Number(values.associations);

const folder = mkdtempSync(join(tmpdir(), "underpass-bench-admin-"));
const token = join(folder, "token");
writeFileSync(token, TOKEN, { mode: 0o600 });
/** @type {(() => unknown)[]} */
const cleanups = [() => rmSync(folder, { recursive: true })];
try {
  const target = await startTarget("echo");
  const sink = await startTarget("sink");
  cleanups.push(target.stop, sink.stop);
  const [tcp, many, one] = [await freeTcpPort(), await freeUdpPort(), await freeUdpPort()];
  const log = ["--log-format", "json", "--max-associations", "32768"];
  const server = start("node", [
    ...[
      "dist/cli/udp-server.js",
      ...log,
      "--max-associations-per-session",
      "32768",
      "--max-tunnels",
      "64",
      "--workers",
      "1",
    ],
    ...["--listen", `127.0.0.1:${tcp}`, "--allow", "127.0.0.1/32"],
  ]);
  cleanups.push(() => stop([server]));
  await ready(server);
  const local = start("node", [
    ...["dist/cli/udp-local.js", ...log, "--server", `127.0.0.1:${tcp}`, "--idle-timeout", "3600"],
    ...["--forward", `127.0.0.1:${many}=127.0.0.1:${target.port}`],
    ...["--forward", `127.0.0.1:${one}=127.0.0.1:${sink.port}`],
    ...["--admin", "127.0.0.1:0", "--admin-token-file", token],
  ]);
  cleanups.push(() => stop([local]));
  const { admin } = await ready(local);
  const pid = /** @type {number} */ (local.pid);
  await sleep(500);
  const held = await hold(many, associations, 4_000);
  cleanups.push(held.stop);
  console.log(`associations answered: ${held.answered}`);
  const headers = { authorization: `Bearer ${TOKEN}` };
  /** @param {string} path */
  const ask = async (path) => (await fetch(`http://${admin}${path}`, { headers })).text();
  for (const what of values.only.split(",")) {
    if (what === "cost") await measureCost(ask, pid, one, sink);
    if (what === "scrape") await measureScrapes(ask, one);
    if (what === "frames") await measureFrames(admin);
  }
} finally {
  for (const clean of cleanups.reverse()) await clean();
}

/**
 * CPU time of udp-local for a datagram at a fixed rate, in turn with nobody at --admin and with what an open page asks for.
 *
 * @param {(path: string) => Promise<string>} ask @param {number} pid @param {number} port @param {import("../load.mjs").Target} sink
 */
async function measureCost(ask, pid, port, sink) {
  /** @type {[number[], number[]]} */
  const costs = [[], []];
  for (let round = 0; round < 2 * rounds; round++) {
    const isWatched = round % 2 === 1;
    let isDone = false;
    const poll = async (/** @type {string} */ path, /** @type {number} */ everyMs) => {
      while (!isDone) {
        await ask(path);
        await sleep(everyMs);
      }
    };
    const polls = isWatched ? [poll("/status", 1_000), poll("/flows", 10_000)] : [];
    await sink.report();
    const before = cpuNs(pid);
    await flood(port, { size: 1200, sockets: 1, burst: 1, rate: RATE, seconds: 5 });
    const spent = cpuNs(pid) - before;
    isDone = true;
    await Promise.all(polls);
    const { count } = await sink.report();
    costs[isWatched ? 1 : 0].push(spent / 1_000 / count);
  }
  const [alone, watched] = costs.map(median);
  const more = (100 * (watched - alone)) / alone;
  console.log(
    `CPU a datagram at ${RATE}/s: ${alone.toFixed(2)} µs, with the page's requests ${watched.toFixed(2)} µs (${more.toFixed(1)} %)`,
  );
}

/** How long a scrape takes while more comes than goes through. @param {(path: string) => Promise<string>} ask @param {number} port */
async function measureScrapes(ask, port) {
  const seconds = 10;
  const flooding = flood(port, { size: 1200, sockets: 1, burst: 64, rate: 0, seconds });
  await sleep(500);
  const times = [];
  const end = Date.now() + (seconds - 1) * 1_000;
  while (Date.now() < end) {
    const at = performance.now();
    await ask("/metrics");
    times.push(performance.now() - at);
    await sleep(100);
  }
  await flooding;
  times.sort((a, b) => a - b);
  console.log(
    `scrapes under flood: ${times.length}, median ${median(times).toFixed(1)} ms, longest ${times.at(-1)?.toFixed(1)} ms`,
  );
}

/** Frames of the page in a second while its table of flows is scrolled, sorted and filtered. @param {string} admin */
async function measureFrames(admin) {
  const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });
  try {
    const page = await browser.newPage({ viewport: { width: 1280, height: 1000 } });
    await page.goto(`http://${admin}/`);
    await page.getByLabel("Admin token").fill(TOKEN);
    await page.getByRole("button", { name: "Show" }).click();
    await page.locator("#flow-rows").scrollIntoViewIfNeeded();
    await page.locator("#flow-shown", { hasText: /^[1-9]\d{3,} of/ }).waitFor();
    console.log(`shown: ${await page.locator("#flow-shown").textContent()}`);
    await page.locator("#rates canvas").waitFor();
    const { frames, longest, seconds } = await page.evaluate(`new Promise((done) => {
      const rows = document.getElementById("flow-rows");
      const filter = document.getElementById("flow-filter");
      rows.scrollIntoView();
      const times = [performance.now()];
      const step = (now) => {
        times.push(now);
        rows.scrollTop += 200;
        if (rows.scrollTop + rows.clientHeight >= rows.scrollHeight) rows.scrollTop = 0;
        if (times.length % 120 === 0) document.querySelectorAll("#flow-columns button")[times.length / 120 % 6].click();
        if (times.length % 200 === 0) {
          filter.value = filter.value === "" ? "127" : "";
          filter.dispatchEvent(new Event("input"));
        }
        if (now - times[0] < 15000) return requestAnimationFrame(step);
        let longest = 0;
        for (let i = 1; i < times.length; i++) longest = Math.max(longest, times[i] - times[i - 1]);
        done({ frames: times.length - 1, longest, seconds: (now - times[0]) / 1000 });
      };
      requestAnimationFrame(step);
    })`);
    console.log(`frames: ${(frames / seconds).toFixed(1)} a second, longest ${longest.toFixed(0)} ms`);
  } finally {
    await browser.close();
  }
}

/** @param {number[]} numbers */
function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[sorted.length >> 1];
}
