import { seededRandom } from "../../unit/random.ts";
import type { End, EndOptions } from "./end.ts";
import type { EventLoop, Wakeable } from "./event-loop.ts";
import type { Packet, Sink } from "./link.ts";
import type { TcpEvents } from "./tcp/endpoint.ts";

/** Pauses of a machine that is scheduled late. Times in milliseconds, uniformly distributed. */
export interface Pauses {
  readonly shortest: number;
  readonly longest: number;
  /** Share of the time that they take. */
  readonly share: number;
}

/** One machine: awake and paused by turns. What happens in a pause happens at its end, in order. */
class Machine implements Wakeable {
  readonly #loop: EventLoop;
  readonly #random: () => number;
  readonly #pauses: Pauses;
  readonly #missed: ((now: number) => void)[] = [];
  #isPaused = false;

  constructor(loop: EventLoop, random: () => number, pauses: Pauses) {
    this.#loop = loop;
    this.#random = random;
    this.#pauses = pauses;
    loop.at(0, this);
  }

  /** Does it now, or at the end of the pause. */
  run(task: (now: number) => void): void {
    if (this.#isPaused) this.#missed.push(task);
    else task(this.#loop.now);
  }

  wake(now: number): void {
    const { shortest, longest, share } = this.#pauses;
    const length = shortest + (this.#random() / 2 ** 32) * (longest - shortest);
    const isPause = !this.#isPaused;
    this.#loop.at(now + (isPause ? length : length * (1 / share - 1)), this);
    this.#isPaused = isPause;
    if (isPause) return;
    for (const task of this.#missed.splice(0)) task(now);
  }
}

/** A connection as seen by a program that may be paused: the system receives, and the program reads later. */
class LateSocket {
  events: TcpEvents = { onRead: () => {}, onWritable: () => {} };
  readonly write: EndOptions["lanes"][number]["write"];

  constructor(socket: EndOptions["lanes"][number], machine: Machine) {
    this.write = (...bytes) => socket.write(...bytes);
    socket.events = {
      onRead: (_now, chunk, length) => {
        const bytes = chunk.slice(0, length);
        machine.run((now) => this.events.onRead(now, bytes, length));
      },
      onWritable: () => machine.run((now) => this.events.onWritable(now)),
    };
  }
}

/** Makes ends of a program that is scheduled late. @param isLate  which of the ends it makes, in order, are late */
export function lateEnds(
  make: (options: EndOptions) => End,
  pauses: Pauses,
  isLate: (index: number) => boolean,
): (options: EndOptions) => End {
  let index = 0;
  return (options) => {
    if (!isLate(index++)) return make(options);
    const { loop, random } = options;
    const machine = new Machine(loop as EventLoop, seededRandom(random()), pauses);
    const lanes = options.lanes.map((socket) => new LateSocket(socket, machine));
    const lateLoop: EndOptions["loop"] = {
      get now() {
        return loop.now;
      },
      at: (time, who, argument) =>
        loop.at(time, { wake: () => machine.run((now) => who.wake(now, argument ?? 0)) }),
    };
    const end = make({ ...options, lanes, loop: lateLoop });
    const send = end.send.bind(end);
    end.send = (_now, flow, data) => {
      const bytes = data.slice();
      machine.run((now) => send(now, flow, bytes));
    };
    return end;
  };
}

/** A way to a link whose machine is scheduled late: packets wait for it, and then come in clumps. */
export function clumped(loop: EventLoop, to: Sink, random: () => number, pauses: Pauses): Sink {
  const machine = new Machine(loop, random, pauses);
  return { send: (packet: Packet) => machine.run(() => to.send(packet)) };
}
