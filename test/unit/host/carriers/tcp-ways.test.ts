import { beforeEach, describe, expect, it } from "vitest";
import { HostError, ProtocolError } from "../../../../src/core/errors.ts";
import { Cancellation } from "../../../../src/host/cancellation.ts";
import type { NamedWay } from "../../../../src/host/carriers/tcp-ways.ts";
import { TcpWays } from "../../../../src/host/carriers/tcp-ways.ts";
import { silentLogger } from "../../../../src/host/log.ts";
import type { Loop } from "../../../../src/host/loop.ts";
import type { ByteStream } from "../../../../src/host/stream/byte-stream.ts";
import { makeAddress } from "../../../../src/wire/socket-address.ts";

const TARGET = makeAddress("192.0.2.9", 80)!;
const REFUSED = new HostError("ERR_CONNECT", "refused by the target", {
  cause: new ProtocolError("ERR_SOCKS_REPLY", "reply 5"),
});

class Attempt {
  readonly cancellation: Cancellation;
  readonly reach: () => void;
  readonly succeed: (stream: ByteStream) => void;
  readonly fail: (error: Error) => void;
  constructor(
    cancellation: Cancellation,
    reach: () => void,
    succeed: (stream: ByteStream) => void,
    fail: (error: Error) => void,
  ) {
    this.cancellation = cancellation;
    this.reach = reach;
    this.succeed = succeed;
    this.fail = fail;
    cancellation.onCancel(() => fail(new Error("given up")));
  }
}

class FakeWay implements NamedWay {
  readonly name: string;
  readonly attempts: Attempt[] = [];
  constructor(name: string) {
    this.name = name;
  }
  connect(_target: unknown, cancellation: Cancellation, onReached = () => {}): Promise<ByteStream> {
    return new Promise((succeed, fail) => {
      this.attempts.push(new Attempt(cancellation, onReached, succeed, fail));
    });
  }
  async close(): Promise<void> {}
}

class FakeStream {
  isDestroyed = false;
  destroy(): void {
    this.isDestroyed = true;
  }
}

const aStream = () => new FakeStream() as FakeStream & ByteStream;
const settled = () => new Promise((done) => setImmediate(done));

describe("several ways for TCP flows", () => {
  let now = 0;
  let timers: { at: number; call: () => void }[] = [];
  let names: unknown[] = [];
  let first: FakeWay;
  let second: FakeWay;
  let ways: TcpWays;
  let wanted: Cancellation;

  const advance = (ms: number) => {
    now += ms;
    const due = timers.filter(({ at }) => at <= now);
    timers = timers.filter(({ at }) => at > now);
    for (const { call } of due) call();
  };
  const loop = {
    now: () => now,
    after: (ms: number, call: () => void) => {
      const timer = { at: now + ms, call };
      timers.push(timer);
      return { cancel: () => (timers = timers.filter((one) => one !== timer)) };
    },
  } as unknown as Loop;
  const connect = () => ways.connect(TARGET, wanted);

  beforeEach(() => {
    now = 5_000;
    timers = [];
    names = [];
    first = new FakeWay("first");
    second = new FakeWay("second");
    wanted = new Cancellation();
    const log = { ...silentLogger, info: ({ way }: { way?: unknown }) => names.push(way) };
    ways = new TcpWays([first, second], loop, log as typeof silentLogger);
  });

  /** Makes the second way the kept one. */
  async function keepSecond(): Promise<void> {
    const flow = connect();
    first.attempts.pop()!.fail(new Error("blocked"));
    await settled();
    const attempt = second.attempts.pop()!;
    attempt.reach();
    attempt.succeed(aStream());
    await flow;
  }

  it("try the first alone, and the next at once if that fails, and keep the one that works", async () => {
    const flow = connect();
    expect([first.attempts.length, second.attempts.length]).toEqual([1, 0]);
    first.attempts[0].fail(new Error("blocked"));
    await settled();
    const stream = aStream();
    second.attempts[0].reach();
    second.attempts[0].succeed(stream);
    expect(await flow).toBe(stream);
    expect(names).toEqual(["second"]);
    void connect();
    expect([first.attempts.length, second.attempts.length]).toEqual([1, 2]);
  });

  it("try the next beside the first if that is silent for the head start, and cancel what is not needed", async () => {
    const flow = connect();
    advance(999);
    expect(second.attempts).toHaveLength(0);
    advance(1);
    expect(first.attempts[0].cancellation.isCancelled).toBe(false);
    const stream = aStream();
    second.attempts[0].reach();
    expect(first.attempts[0].cancellation.isCancelled).toBe(true);
    second.attempts[0].succeed(stream);
    expect(await flow).toBe(stream);
    expect(timers).toHaveLength(0);
  });

  it("begin no other once the proxy has answered, however long the target takes", async () => {
    const flow = connect();
    advance(500);
    first.attempts[0].reach();
    advance(9_000);
    expect(second.attempts).toHaveLength(0);
    first.attempts[0].fail(REFUSED);
    await expect(flow).rejects.toBe(REFUSED);
    expect(second.attempts).toHaveLength(0);
    expect(names).toEqual([]);
  });

  it("try the next when a proxy answers and is lost", async () => {
    const flow = connect();
    first.attempts[0].reach();
    first.attempts[0].fail(new Error("lost"));
    await settled();
    second.attempts[0].fail(new Error("blocked"));
    await expect(flow).rejects.toThrow(/lost; blocked/);
  });

  it("prefer the way that worked for ten minutes, then the first one given", async () => {
    await keepSecond();
    advance(599_999);
    void connect().catch(() => {});
    expect([first.attempts.length, second.attempts.length]).toEqual([0, 1]);
    advance(1);
    void connect().catch(() => {});
    expect(first.attempts).toHaveLength(1);
  });

  it("destroy a stream that arrives after the flow was cancelled, and hold no timer", async () => {
    const flow = connect();
    wanted.cancel();
    await expect(flow).rejects.toThrow(/the attempt was cancelled/);
    expect(first.attempts[0].cancellation.isCancelled).toBe(true);
    expect(timers).toHaveLength(0);
  });
});
