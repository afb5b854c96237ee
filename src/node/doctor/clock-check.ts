import { Cancellation } from "../../host/cancellation.ts";
import { connectStream } from "../../host/carriers/socket.ts";
import type { Bench } from "../../host/doctor/bench.ts";
import type { Check, Result } from "../../host/doctor/checks/check.ts";
import { skipped } from "../../host/doctor/checks/check.ts";
import { chainOf, outgoing } from "../../host/doctor/examined.ts";
import { finding } from "../../host/doctor/findings.ts";
import { formatHttpDate } from "../../wire/http/http-date.ts";
import { decodeHead, singleField, utf8Bytes } from "../../wire/http/http-head.ts";

/** Clock difference that shadowsocks 2022 tolerates (SIP022 §3.1.3). */
const MOST_SECONDS = 30;
const MAX_HEAD = 8_192;

/** Compares this machine's clock with a web server's, because shadowsocks 2022 and certificates need the right time. */
export const CLOCK_CHECK: Check<Bench> = {
  name: "clock",
  needs: [],
  async run(bench): Promise<Result> {
    const { settings, system } = bench;
    const now = formatHttpDate(system.unixMs());
    if (settings.testClock === undefined) return skipped(`${now}, not compared: --test-clock http://HOST/`);
    const [, bracketed, plain, port = "80"] =
      /^http:\/\/(?:[^/@]*@)?(?:\[([^\]]*)\]|([^/:]+))(?::(\d+))?/.exec(settings.testClock) ?? [];
    const host = bracketed ?? plain;
    const date = await askDate(bench, host, Number(port)).catch(() => undefined);
    if (date === undefined) return skipped(`${now}; ${settings.testClock} sends no date`);
    const offset = Math.round((system.unixMs() - date) / 1000);
    const measured = `${now}, ${offset} s from that of ${host}`;
    const isOff = Math.abs(offset) > MOST_SECONDS;
    return {
      measured,
      data: { offsetS: offset },
      findings: isOff && needsClock(bench) ? [finding("clock-off", [measured])] : [],
    };
  },
};

/** Whether any way has a part that needs the right time. */
function needsClock(bench: Bench): boolean {
  return bench.options.ways.some((_, way) =>
    chainOf({ ...bench, way }).hops.some(
      (hop) =>
        hop.kind === "tls" ||
        (hop.kind === "ws" && hop.request.tls !== undefined) ||
        (hop.kind === "ss" && hop.shadowsocks.method.is2022),
    ),
  );
}

async function askDate(bench: Bench, host: string, port: number): Promise<number | undefined> {
  const { system, settings } = bench;
  const deadline = new Cancellation().within(system, settings.testTimeoutMs);
  const stream = await connectStream(system, { host, port }, outgoing(bench), deadline);
  try {
    return await new Promise<number | undefined>((done) => {
      const head = new Uint8Array(MAX_HEAD);
      let length = 0;
      const leave = deadline.onCancel(() => done(undefined));
      const finish = (date: number | undefined) => {
        leave();
        done(date);
      };
      stream.start({
        onBytes: (chunk, count) => {
          const taken = Math.min(count, MAX_HEAD - length);
          head.set(chunk.subarray(0, taken), length);
          length += taken;
          const end = endOfHead(head, length);
          if (end < 0 && length < MAX_HEAD) return;
          const decoded = end < 0 ? undefined : decodeHead(head, end);
          const date = decoded && Date.parse(singleField(decoded, "date") ?? "");
          finish(date === undefined || Number.isNaN(date) ? undefined : date);
        },
        onEnd: () => finish(undefined),
        onWritten: () => {},
        onClose: () => finish(undefined),
      });
      stream.write(utf8Bytes(`HEAD / HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`));
    });
  } finally {
    deadline.release();
    stream.destroy();
  }
}

/** @returns the offset after the empty line; -1 if there is none */
function endOfHead(bytes: Uint8Array, length: number): number {
  for (let i = 3; i < length; i++) {
    if (bytes[i] === 10 && bytes[i - 2] === 10) return i + 1;
  }
  return -1;
}
