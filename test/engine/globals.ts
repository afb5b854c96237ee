// The parts of Node's global object that tests use, for an engine that has only ECMAScript. Imported first.
import { Buffer } from "buffer/";

interface Timer {
  readonly at: number;
  readonly callback: () => void;
}

/** Scheduled calls in the order of their times. Time passes at once when nothing else is left to do. */
const timers = new Set<Timer>();
let now = 0;

function setTimeout(callback: () => void, delayMs = 0): Timer {
  const timer = { at: now + delayMs, callback };
  timers.add(timer);
  return timer;
}

/** Calls back the timer that is due next. @returns false when there is none */
function runTimer(): boolean {
  const [first] = [...timers].toSorted((a, b) => a.at - b.at);
  if (first === undefined) return false;
  timers.delete(first);
  now = Math.max(now, first.at);
  first.callback();
  return true;
}

class TextEncoder {
  encode(text = ""): Uint8Array {
    return new Uint8Array(Buffer.from(text));
  }
}

class TextDecoder {
  decode(bytes: Uint8Array = new Uint8Array(0)): string {
    return Buffer.from(bytes).toString();
  }
}

// It accepts only Buffers; Node's accepts any bytes.
const { indexOf } = Buffer.prototype;
Buffer.prototype.indexOf = function (this: Buffer, value: never, ...rest: never[]): number {
  return indexOf.call(this, (value as unknown) instanceof Uint8Array ? Buffer.from(value) : value, ...rest);
} as typeof indexOf;

/** chai's events have no listeners. */
class EventTarget {
  addEventListener(): void {}
  removeEventListener(): void {}
  dispatchEvent(): boolean {
    return true;
  }
}

Object.assign(globalThis, {
  Event: class {},
  EventTarget,
  TextEncoder,
  TextDecoder,
  onIdle: runTimer,
  Buffer,
  global: globalThis,
  process: { env: {}, argv: [], platform: "linux", stdout: {}, stderr: {}, versions: {}, cwd: () => "/" },
  performance: { now: () => now },
  console: { log: print, warn: print, error: print },
  setTimeout,
  clearTimeout: (timer: Timer | undefined) => timer !== undefined && timers.delete(timer),
  setImmediate: (callback: () => void) => setTimeout(callback),
  queueMicrotask: (callback: () => void) => void Promise.resolve().then(callback),
});
