import type { End, EndOptions } from "./end.ts";

const HEADER = 7;
const MAX_BATCH_BYTES = 131_072;

/** The behaviour before lanes were scheduled: each flow stays on one lane, which has a queue bounded by age. */
export class FixedLanes implements End {
  onDatagram: End["onDatagram"] = () => {};
  readonly #options: EndOptions;
  readonly #lanes: FixedLane[];

  constructor(options: EndOptions) {
    this.#options = options;
    this.#lanes = options.lanes.map(
      (tcp) => new FixedLane(tcp, options.age, (...found) => this.onDatagram(...found)),
    );
  }

  send(now: number, flow: number, data: Uint8Array): void {
    this.#lanes[flow % this.#options.lanes.length].send(now, flow, data);
  }

  describe(): string {
    return "";
  }
}

class FixedLane {
  readonly #tcp: EndOptions["lanes"][number];
  readonly #age: number;
  readonly #onDatagram: End["onDatagram"];
  readonly #queue: { at: number; frame: Uint8Array }[] = [];
  #batch = new Uint8Array(0);
  #written = 0;
  #carry = new Uint8Array(0);

  constructor(tcp: EndOptions["lanes"][number], age: number, onDatagram: End["onDatagram"]) {
    this.#tcp = tcp;
    this.#age = age;
    this.#onDatagram = onDatagram;
    tcp.events = {
      onRead: (now, chunk, length) => this.#read(now, chunk, length),
      onWritable: (now) => this.#pump(now),
    };
  }

  send(now: number, flow: number, data: Uint8Array): void {
    const frame = new Uint8Array(HEADER + data.length);
    new DataView(frame.buffer).setUint32(0, data.length);
    new DataView(frame.buffer).setUint16(4, flow);
    frame.set(data, HEADER);
    this.#queue.push({ at: now, frame });
    this.#pump(now);
  }

  #pump(now: number): void {
    for (;;) {
      if (this.#written < this.#batch.length) {
        this.#written += this.#tcp.write(this.#batch, this.#written, this.#batch.length);
        if (this.#written < this.#batch.length) return;
      }
      while (this.#queue.length > 0 && now - this.#queue[0].at > this.#age) this.#queue.shift();
      if (this.#queue.length === 0) return;
      let length = 0;
      let count = 0;
      while (count < this.#queue.length && length + this.#queue[count].frame.length <= MAX_BATCH_BYTES) {
        length += this.#queue[count++].frame.length;
      }
      this.#batch = new Uint8Array(length);
      this.#written = 0;
      let at = 0;
      for (const { frame } of this.#queue.splice(0, count)) {
        this.#batch.set(frame, at);
        at += frame.length;
      }
    }
  }

  #read(now: number, chunk: Uint8Array, length: number): void {
    let bytes = chunk.subarray(0, length);
    if (this.#carry.length > 0) {
      const joined = new Uint8Array(this.#carry.length + length);
      joined.set(this.#carry);
      joined.set(bytes, this.#carry.length);
      bytes = joined;
    }
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    let at = 0;
    while (bytes.length - at >= HEADER) {
      const size = view.getUint32(at);
      if (bytes.length - at - HEADER < size) break;
      this.#onDatagram(now, view.getUint16(at + 4), bytes, at + HEADER, size);
      at += HEADER + size;
    }
    this.#carry = bytes.slice(at);
  }
}
