// Runs build/load: targets and senders.
import { once } from "node:events";
import { createInterface } from "node:readline";
import { LOAD, start } from "./processes.mjs";

/**
 * What a target took since its last report: µs of delay one way, s between the first and the last.
 *
 * @typedef {{ count: number, seconds: number, corrupt: number, duplicate: number, reordered: number, p50: number,
 *   p90: number, p99: number, p999: number, max: number }} Taken
 */
/** @typedef {{ port: number, report: () => Promise<Taken>, stop: () => void }} Target */

/** @param {"sink" | "echo"} mode @returns {Promise<Target>} */
export async function startTarget(mode) {
  const child = start(LOAD, [mode, "3600"]);
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const { port } = JSON.parse((await lines.next()).value);
  return {
    port,
    report: async () => {
      child.kill("SIGUSR1");
      return JSON.parse((await lines.next()).value);
    },
    stop: () => child.kill("SIGTERM"),
  };
}

/** Runs a sender to its end. @param {(string | number)[]} args @returns {Promise<any>} */
async function run(args) {
  const child = start(LOAD, args.map(String));
  let text = "";
  child.stdout.on("data", (data) => {
    text += data;
  });
  await once(child, "close");
  if (text === "") throw new Error(`load ${args.join(" ")} failed`);
  return JSON.parse(text);
}

/** @typedef {{ size: number, sockets: number, burst: number, rate: number, seconds: number }} Load  rate 0: all it can */

/** @param {number} port @param {Load} load @returns {Promise<{ sent: number, seconds: number }>} */
export function flood(port, { size, sockets, burst, rate, seconds }) {
  return run(["flood", port, size, sockets, seconds, rate, burst]);
}

/** At a fixed rate with answers; µs of round trip. @param {number} port @param {Load} load @returns {Promise<Taken & { sent: number }>} */
export function open(port, { size, burst, rate, seconds }) {
  return run(["open", port, size, seconds, rate, burst]);
}

/** @param {number} port @param {number} size @param {number} count */
export function ping(port, size, count) {
  return run(["ping", port, size, count]);
}

/** One datagram from each of so many sockets, which stay open. @param {number} port @param {number} sockets @param {number} perSecond */
export async function hold(port, sockets, perSecond) {
  const child = start(LOAD, ["hold", port, 64, sockets, perSecond].map(String));
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const { value } = await lines.next();
  if (value === undefined) throw new Error(`load hold ${sockets} failed`);
  return { answered: Number(JSON.parse(value).answered), stop: () => child.kill("SIGTERM") };
}
