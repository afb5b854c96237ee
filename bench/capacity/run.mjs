// Simulates how much a udp-server carries: `npm run bench:capacity`. Prints tables in Markdown; see docs/operate/capacity.md.
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const { values } = parseArgs({
  options: {
    users: { type: "string", default: "1,100,1000" },
    only: { type: "string", default: "memory,times,reconnects,bounds" },
    /** Options of a child of this program, which runs one measure. */
    measure: { type: "string" },
  },
});

/** @param {string} name @param {number} users @returns {any} */
function inOwnProcess(name, users) {
  const file = fileURLToPath(import.meta.url);
  const argv = ["--max-old-space-size=12000", file, "--measure", name, "--users", String(users)];
  const { status, stdout } = spawnSync(process.execPath, argv, {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
  });
  if (status !== 0) process.exit(1);
  return JSON.parse(stdout);
}

/** @param {readonly (readonly (string | number)[])[]} rows */
function table([head, ...rows]) {
  const line = (/** @type {readonly (string | number)[]} */ row) => `| ${row.join(" | ")} |`;
  console.log([line(head), line(head.map(() => "---")), ...rows.map(line), ""].join("\n"));
}

const number = (/** @type {number} */ value, digits = 0) =>
  value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const kB = (/** @type {number} */ bytes) => `${number(bytes / 1_000, 1)} kB`;
const MB = (/** @type {number} */ bytes) => `${number(bytes / 1e6, bytes < 1e7 ? 1 : 0)} MB`;

function reportMemory(/** @type {number[]} */ sizes) {
  const kinds = inOwnProcess("memoryByKind", 500);
  table([
    ["What", "Memory"],
    ["a session with one lane, without receipts", kB(kinds.single)],
    ["a session with receipts, without its lanes", kB(kinds.session)],
    ["each of its lanes", kB(kinds.lane)],
    ["an association, without its contexts", kB(kinds.association)],
    ["a context", kB(kinds.context)],
  ]);
  table([
    ["Users", "Memory, measured", "Memory, by the sums above"],
    ...sizes.map((users) => [
      number(users),
      MB(inOwnProcess("memoryInAll", users).bytes),
      MB(users * (kinds.session + 4 * kinds.lane + 20 * (kinds.association + kinds.context))),
    ]),
  ]);
}

function reportTimes(/** @type {number[]} */ sizes) {
  const results = sizes.map((users) => inOwnProcess("times", users));
  table([
    ["Users", "A new one", "A round of heartbeats", "A datagram and its answer of one, others idle"],
    ...results.map(({ users, session, heartbeats, datagram }) => [
      number(users),
      `${number(session, 2)} ms`,
      `${number(heartbeats, 1)} ms`,
      `${number(1_000 * datagram, 1)} µs`,
    ]),
  ]);
}

function reportReconnects(/** @type {number[]} */ sizes) {
  const seconds = (/** @type {number} */ ms) => `${number(ms / 1_000, 1)} s`;
  table([
    [
      "Users",
      "`--max-half-open`",
      "Half of them are back after",
      "All",
      "Refused half-open",
      "CPU time of the server",
    ],
    ...sizes.flatMap((users) => {
      const { raised, bounded } = inOwnProcess("reconnects", users);
      return [
        [bounded, "256"],
        [raised, number(4 * users)],
      ].map(([{ half, all, cpuMs, refused }, limit]) => [
        ...[number(users), limit, seconds(half), seconds(all), number(refused), seconds(cpuMs)],
      ]);
    }),
  ]);
}

function reportBounds() {
  const { users, up, sessions, lanes, associations, reasons } = inOwnProcess("bounds", 1_100);
  console.log(
    `${number(users)} users at the default bounds: ${number(up)} are up, ${number(sessions)} sessions, ${number(lanes)} lanes, ${number(associations)} associations\n`,
  );
  table([
    ["Reason", "First with user", "Count"],
    ...reasons.map((/** @type {any} */ { reason, at, count }) => [
      `\`${reason}\``,
      number(at),
      number(count),
    ]),
  ]);
  for (const count of [200, 1_000]) {
    const result = inOwnProcess("lingering", count);
    console.log(
      `${number(count)} users whose connections all end: ${number(result.resumed)} sessions resume, ${number(result.evicted)} end by \`session_evicted\`\n`,
    );
  }
}

const sizes = values.users.split(",").map(Number);
if (values.measure !== undefined) {
  const { MEASURES } = await import("./measures.mjs");
  const measure = MEASURES[/** @type {keyof typeof MEASURES} */ (values.measure)];
  console.log(JSON.stringify(measure(sizes[0])));
} else {
  const wanted = values.only.split(",");
  if (wanted.includes("memory")) reportMemory(sizes);
  if (wanted.includes("times")) reportTimes(sizes);
  if (wanted.includes("reconnects")) reportReconnects(sizes);
  if (wanted.includes("bounds")) reportBounds();
}
