/** Receives an event. `argument` is the one passed to {@link EventLoop.at}. */
export interface Wakeable {
  wake(now: number, argument: number): void;
}

/**
 * Virtual time, in milliseconds. Events of one instant run in the order in which they were scheduled. An event cannot be
 * cancelled; its receiver ignores it if it is obsolete.
 */
export class EventLoop {
  now = 0;
  #count = 0;
  #sequence = 0;
  #times = new Float64Array(1024);
  #orders = new Float64Array(1024);
  #arguments = new Float64Array(1024);
  readonly #wakeables: Wakeable[] = [];

  at(time: number, who: Wakeable, argument = 0): void {
    if (this.#count === this.#times.length) this.#grow();
    let slot = this.#count++;
    const order = this.#sequence++;
    while (slot > 0) {
      const parent = (slot - 1) >> 1;
      if (this.#times[parent] <= time) break;
      this.#move(parent, slot);
      slot = parent;
    }
    this.#set(slot, time, order, who, argument);
  }

  /** Runs until virtual time is `end`. */
  run(end: number): void {
    while (this.#count > 0 && this.#times[0] <= end) {
      this.now = Math.max(this.now, this.#times[0]);
      const who = this.#wakeables[0];
      const argument = this.#arguments[0];
      this.#pop();
      who.wake(this.now, argument);
    }
    this.now = end;
  }

  #pop(): void {
    const last = --this.#count;
    if (last === 0) return;
    const time = this.#times[last];
    const order = this.#orders[last];
    const who = this.#wakeables[last];
    const argument = this.#arguments[last];
    let slot = 0;
    for (;;) {
      let child = 2 * slot + 1;
      if (child >= last) break;
      if (child + 1 < last && this.#isBefore(child + 1, child)) child++;
      if (this.#times[child] > time || (this.#times[child] === time && this.#orders[child] > order)) break;
      this.#move(child, slot);
      slot = child;
    }
    this.#set(slot, time, order, who, argument);
  }

  #isBefore(one: number, other: number): boolean {
    const difference = this.#times[one] - this.#times[other];
    return difference < 0 || (difference === 0 && this.#orders[one] < this.#orders[other]);
  }

  #move(from: number, to: number): void {
    this.#set(to, this.#times[from], this.#orders[from], this.#wakeables[from], this.#arguments[from]);
  }

  #set(slot: number, time: number, order: number, who: Wakeable, argument: number): void {
    this.#times[slot] = time;
    this.#orders[slot] = order;
    this.#wakeables[slot] = who;
    this.#arguments[slot] = argument;
  }

  #grow(): void {
    const size = this.#times.length * 2;
    const [times, orders, args] = [this.#times, this.#orders, this.#arguments];
    this.#times = new Float64Array(size);
    this.#orders = new Float64Array(size);
    this.#arguments = new Float64Array(size);
    this.#times.set(times);
    this.#orders.set(orders);
    this.#arguments.set(args);
  }
}
