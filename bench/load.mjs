// Runs build/load: targets and senders.
import { createInterface } from "node:readline";
import { json, LOAD, start, startIn } from "./processes.mjs";

/**
 * Datagrams that a target received since its last report: one-way delays in µs, seconds from the first to the last.
 *
 * @typedef {{ count: number, seconds: number, corrupt: number, duplicate: number, reordered: number, p50: number,
 *   p90: number, p99: number, p999: number, max: number }} Taken
 */
/** @typedef {{ port: number, report: () => Promise<Taken>, stop: () => void }} Target */

/** @param {"sink" | "echo"} mode @param {string} [host]  network namespace @param {string} [address] @returns {Promise<Target>} */
export async function startTarget(mode, host, address) {
  const child = startIn(host, [LOAD, mode, 3600, ...(address === undefined ? [] : [address])]);
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

/** @typedef {{ size: number, sockets: number, burst: number, rate: number, seconds: number }} Load  rate 0: all it can */

/** A port of loopback, `ADDRESS:PORT`, or `ADDRESS:PORT@SOCKS`. @typedef {number | string} To */

/** @param {To} to @param {Load} load @param {string} [host] @returns {Promise<{ sent: number, seconds: number }>} */
export function flood(to, { size, sockets, burst, rate, seconds }, host) {
  return json(host, [LOAD, "flood", to, size, sockets, seconds, rate, burst]);
}

/**
 * A load at a fixed rate with answers; round trips in µs.
 *
 * @param {To} to @param {Omit<Load, "sockets">} load @param {string} [host] @returns {Promise<Taken & { sent: number }>}
 */
export function open(to, { size, burst, rate, seconds }, host) {
  return json(host, [LOAD, "open", to, size, seconds, rate, burst]);
}

/** @param {To} to @param {number} size @param {number} count */
export function ping(to, size, count) {
  return json(undefined, [LOAD, "ping", to, size, count]);
}

/**
 * Sends one datagram from each of several sockets, which stay open; delays of the answers in µs.
 *
 * @param {number} port @param {number} sockets @param {number} perSecond  0: the next one as soon as fewer than 64 are unanswered
 * @returns {Promise<Taken & { answered: number, stop: () => void }>}
 */
export async function hold(port, sockets, perSecond) {
  const child = start(LOAD, ["hold", port, 64, sockets, perSecond].map(String));
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const { value } = await lines.next();
  if (value === undefined) throw new Error(`load hold ${sockets} failed`);
  const taken = JSON.parse(value);
  return { ...taken, answered: taken.count, stop: () => child.kill("SIGTERM") };
}
