import type { End, EndOptions } from "./end.ts";

/** An end on a machine whose clock is fast by `ppm`, in parts per million; negative for a slow one. */
export function drifting(make: (options: EndOptions) => End, options: EndOptions, ppm: number): End {
  const factor = 1 + ppm / 1e6;
  const { loop } = options;
  const inner = make({
    ...options,
    loop: {
      get now() {
        return loop.now * factor;
      },
      at: (time, wakeable) =>
        loop.at(time / factor, { wake: (now, argument) => wakeable.wake(now * factor, argument) }),
    },
    lanes: options.lanes.map((lane) => ({
      get events() {
        return lane.events;
      },
      set events({ onRead, onWritable }) {
        lane.events = {
          onRead: (now, chunk, length) => onRead(now * factor, chunk, length),
          onWritable: (now) => onWritable(now * factor),
        };
      },
      write: (data, at, end) => lane.write(data, at, end),
    })),
  });
  const end: End = {
    send: (now, flow, data) => inner.send(now * factor, flow, data),
    onDatagram: () => {},
    describe: () => inner.describe(),
  };
  inner.onDatagram = (now, flow, data, offset, length) =>
    end.onDatagram(now / factor, flow, data, offset, length);
  return end;
}
