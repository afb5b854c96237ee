// Two flows to the UDP echo at 127.0.0.1:argv[2]: a call, 100 bytes every 20 ms, and bulk, 1,200 bytes at most every 5 ms and only while
// fewer than 64 are unanswered. A slow machine makes them slower, but lets no socket's buffer overflow.
//
// Prints "begun" when argv[3] datagrams of bulk are answered. When argv[4] further ones are, bulk ends. The call ends when each datagram of
// bulk is answered or lost, and this prints {"call": {"lost", "twice"}, "bulk": the same}.
import { createSocket } from "node:dgram";

const [port, before, after] = process.argv.slice(2).map(Number);
/** Each takes 2,304 bytes of a socket's receive buffer, which has 212,992. */
const WINDOW = 64;
/** A datagram that is not among this many answers after it was sent counts as lost, even if it is answered later. */
const PATIENCE = 200;

/** To datagrams of both flows. */
let answers = 0;

class Flow {
  sent = 0;
  answered = 0;
  lost = 0;
  twice = 0;
  /** By number, in the order of sending: the count of answers when it was sent. */
  #pending = new Map();
  #size;
  #udp = createSocket("udp4");
  #seen = new Set();

  constructor(size) {
    this.#size = size;
    this.#udp.on("error", () => {});
    this.#udp.on("message", (bytes) => {
      const number = bytes.readUInt32BE();
      answers++;
      this.#giveUp();
      if (this.#pending.delete(number)) this.answered++;
      else if (this.#seen.has(number)) this.twice++;
      this.#seen.add(number);
    });
  }

  get unanswered() {
    this.#giveUp();
    return this.#pending.size;
  }

  #giveUp() {
    for (const [number, answersBefore] of this.#pending) {
      if (answers - answersBefore < PATIENCE) return;
      this.#pending.delete(number);
      this.lost++;
    }
  }

  send() {
    const bytes = Buffer.alloc(this.#size, "x");
    bytes.writeUInt32BE(this.sent);
    this.#pending.set(this.sent++, answers);
    this.#udp.send(bytes, port, "127.0.0.1");
  }

  get counts() {
    return { lost: this.lost, twice: this.twice };
  }
}

const [call, bulk] = [new Flow(100), new Flow(1_200)];
let hasBegun = false;

setInterval(() => {
  if (bulk.answered >= before && !hasBegun) {
    hasBegun = true;
    console.log("begun");
  }
  if (bulk.answered < before + after && bulk.unanswered < WINDOW) bulk.send();
}, 5);

setInterval(() => {
  if (bulk.answered >= before + after && bulk.unanswered === 0) {
    console.log(JSON.stringify({ call: call.counts, bulk: bulk.counts }));
    process.exit();
  }
  call.send();
}, 20);
