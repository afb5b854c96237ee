// Sends bytes through a tunnel to an echo and compares every answer with the bytes sent.
import { randomBytes } from "node:crypto";
import { createSocket } from "node:dgram";
import { once } from "node:events";

const HOST = "127.0.0.1";
const LARGEST = 60_000;
/** Bytes of the number that identifies an answer. */
const SMALLEST = 4;
const AT_ONCE = 8;
/** Bound of unanswered bytes: the default buffer of a socket. */
const BYTES_AT_ONCE = 80_000;
/** Datagrams without an answer for this long are lost; longer than the age budget of {@link PATIENT}. */
const LOST_AFTER_MS = 25_000;
/** Options of both ends that keep them from dropping queued datagrams. */
export const PATIENT = ["--age-budget-ms", "20000"];

/** @returns {Promise<{ port: number, stop: () => void }>} */
export async function startEcho() {
  const socket = createSocket("udp4");
  socket.on("message", (bytes, { port, address }) => socket.send(bytes, port, address));
  socket.bind(0, HOST);
  await once(socket, "listening");
  return { port: socket.address().port, stop: () => socket.close() };
}

/**
 * Datagrams of 4 to 60,000 bytes, at most eight at a time, until so many bytes were sent.
 *
 * @param {number} port  of the tunnel @param {number} bytes
 * @returns {Promise<{ sent: number, lost: number, twice: number, wrong: number, seconds: number }>}
 */
export async function compareEchoes(port, bytes) {
  const pattern = randomBytes(2 * LARGEST);
  const socket = createSocket("udp4");
  socket.bind(0, HOST);
  await once(socket, "listening");
  /** What was sent and is not answered yet, by number. @type {Map<number, Buffer>} */
  const waiting = new Map();
  const result = { sent: 0, lost: 0, twice: 0, wrong: 0, seconds: 0 };
  let left = bytes;
  let waitingBytes = 0;
  const startedAt = performance.now();

  function sendNext() {
    const size = Math.min(
      Math.max(SMALLEST, left),
      SMALLEST + (pattern.readUInt32LE(result.sent % LARGEST) % (LARGEST - SMALLEST + 1)),
    );
    const begin = (result.sent * 7) % LARGEST;
    const datagram = Buffer.from(pattern.subarray(begin, begin + size));
    datagram.writeUInt32BE(result.sent);
    waiting.set(result.sent++, datagram);
    left -= size;
    waitingBytes += size;
    socket.send(datagram, port, HOST);
  }

  await new Promise((resolve) => {
    function refill() {
      while (left > 0 && waiting.size < AT_ONCE && waitingBytes < BYTES_AT_ONCE) sendNext();
      if (waiting.size > 0) return;
      clearInterval(giveUp);
      resolve(undefined);
    }
    const giveUp = setInterval(() => {
      result.lost += waiting.size;
      waiting.clear();
      waitingBytes = 0;
      refill();
    }, LOST_AFTER_MS);
    socket.on("message", (answer) => {
      giveUp.refresh();
      const number = answer.length < SMALLEST ? -1 : answer.readUInt32BE();
      const datagram = waiting.get(number);
      if (datagram === undefined) {
        if (number >= 0 && number < result.sent) result.twice++;
        else result.wrong++;
        return;
      }
      if (!answer.equals(datagram)) result.wrong++;
      waiting.delete(number);
      waitingBytes -= datagram.length;
      refill();
    });
    refill();
  });
  result.seconds = (performance.now() - startedAt) / 1000;
  socket.close();
  return result;
}
