import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

/** CLOCK_MONOTONIC in milliseconds: all processes of the machine share this clock, so their times can be compared. */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

export interface Line {
  readonly text: string;
  /** When it was read, on the clock of {@link monotonicMs}. */
  readonly atMs: number;
}

const DEADLINE_STEPS = 20;

/**
 * Rejects after `ms` with what `describe` returns at that time. However long this process stands still meanwhile, as it does while another
 * test makes its hosts, that counts as a twentieth at most: what has arrived by then is read first.
 */
async function withDeadline<T>(promise: Promise<T>, ms: number, describe: () => string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const expiry = new Promise<never>((_, reject) => {
    let steps = 0;
    timer = setInterval(() => {
      steps++;
      if (steps === DEADLINE_STEPS) reject(new Error(`after ${ms} ms: ${describe()}`));
    }, ms / DEADLINE_STEPS);
  });
  try {
    return await Promise.race([promise, expiry]);
  } finally {
    clearInterval(timer);
  }
}

/** A program that runs inside a host. `pid` is the program's own: `ip netns exec` execs it. */
export class Program {
  readonly argv: readonly string[];
  readonly pid: number;
  readonly lines: Line[] = [];
  readonly #process: ChildProcess;
  readonly #closed: Promise<unknown>;
  readonly #watchers = new Set<(line: Line) => void>();

  constructor(namespace: string, argv: readonly string[]) {
    this.argv = argv;
    // Detached: a process group of its own, so that plugins die with the program that started them.
    this.#process = spawn("ip", ["netns", "exec", namespace, ...argv], { detached: true, stdio: "pipe" });
    if (this.#process.pid === undefined) throw new Error(`cannot start ${argv.join(" ")}`);
    this.pid = this.#process.pid;
    this.#closed = once(this.#process, "close");
    this.#process.stdin!.on("error", () => {}); // A program may end before it has read its input.
    for (const stream of [this.#process.stdout!, this.#process.stderr!]) {
      createInterface({ input: stream }).on("line", (text) => {
        const line = { text, atMs: monotonicMs() };
        this.lines.push(line);
        for (const watch of this.#watchers) watch(line);
      });
    }
  }

  get stdin(): NodeJS.WritableStream {
    return this.#process.stdin!;
  }

  /** Waits for the first line, including earlier ones, for which `wanted` returns a value, and returns that value. */
  async waitFor<T>(wanted: (line: Line) => T | undefined, timeoutMs: number, what: string): Promise<T> {
    let watch: (line: Line) => void = () => {};
    const found = new Promise<T>((resolve, reject) => {
      watch = (line) => {
        const value = wanted(line);
        if (value !== undefined) resolve(value);
      };
      this.lines.forEach(watch);
      this.#watchers.add(watch);
      this.#closed.then(() => reject(new Error(`ended before ${what}\n${this.transcript()}`)));
    });
    try {
      return await withDeadline(found, timeoutMs, () => `no ${what}\n${this.transcript()}`);
    } finally {
      this.#watchers.delete(watch);
    }
  }

  /** Like {@link waitFor}, for a line that matches `pattern`. */
  waitForLine(pattern: RegExp, timeoutMs = 10_000): Promise<Line> {
    return this.waitFor((line) => (pattern.test(line.text) ? line : undefined), timeoutMs, `line ${pattern}`);
  }

  /** Resolves with the exit status once the program has ended and its output has been read. Rejects at the deadline. */
  async exit(timeoutMs: number): Promise<number | null> {
    await withDeadline(this.#closed, timeoutMs, () => `still running\n${this.transcript()}`);
    return this.#process.exitCode;
  }

  /** Sends SIGKILL to the program and its plugins; resolves when they have ended. */
  async kill(): Promise<void> {
    try {
      process.kill(-this.pid, "SIGKILL");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
    }
    await this.#closed;
  }

  /** The command line and the last lines of output, for the message of a failure. */
  transcript(): string {
    const lines = this.lines.slice(-25).map((line) => `    ${line.text.slice(0, 400)}`);
    const status = this.#process.exitCode ?? this.#process.signalCode ?? "running";
    return [`  [${status}] ${this.argv.join(" ")}`, ...lines].join("\n");
  }
}

/** One network namespace. Its addresses are reachable from the other host by TCP only. */
export class Host {
  readonly namespace: string;
  readonly ipv4: string;
  readonly ipv6: string;
  readonly programs: Program[] = [];
  readonly #ports: number[];

  constructor(namespace: string, ipv4: string, ipv6: string, ports: number[]) {
    this.namespace = namespace;
    this.ipv4 = ipv4;
    this.ipv6 = ipv6;
    this.#ports = ports;
  }

  /** A port that the system chose and will not assign to others, so a restarted program finds it free. */
  port(): number {
    const port = this.#ports.pop();
    if (port === undefined) throw new Error(`${this.namespace} has no more ports: raise PORTS_A_HOST`);
    return port;
  }

  spawn(argv: readonly string[]): Program {
    const program = new Program(this.namespace, argv);
    this.programs.push(program);
    return program;
  }

  /** Runs a program to its end with `input` on stdin and returns its output lines. Rejects unless it exits with 0 in time. */
  async run(
    argv: readonly string[],
    options: { input?: string; timeoutMs?: number } = {},
  ): Promise<string[]> {
    const program = this.spawn(argv);
    program.stdin.end(options.input ?? "");
    try {
      const status = await program.exit(options.timeoutMs ?? 20_000);
      if (status !== 0) throw new Error(`exit status ${status}\n${program.transcript()}`);
    } finally {
      await program.kill();
    }
    this.programs.splice(this.programs.indexOf(program), 1);
    return program.lines.map((line) => line.text);
  }

  /** Connects repeatedly until `address` accepts. */
  async waitForTcp(address: string, port: number, timeoutMs = 10_000): Promise<void> {
    const poll = `until nc -z -w 1 ${address} ${port}; do sleep 0.02; done`;
    await this.run(["sh", "-c", poll], { timeoutMs });
  }

  /** Destroys the established TCP connections to `port`, as a failing network path would; both ends get a reset. */
  async cutTcp(port: number): Promise<void> {
    const killed = await this.run(["ss", "-K", "-Htn", "state", "established", "dport", "=", `:${port}`]);
    if (killed.length === 0) throw new Error(`no TCP connection to port ${port} to cut in ${this.namespace}`);
  }

  async killAll(): Promise<void> {
    await Promise.all(this.programs.map((program) => program.kill()));
    this.programs.length = 0;
  }
}

const PORTS_A_HOST = 96;

/** Opens that many listeners at once, so that all ports differ, then closes them. */
const ASK_PORTS = `
const { createServer } = require("node:net");
const servers = Array.from({ length: ${PORTS_A_HOST} }, () => createServer().listen(0));
setImmediate(() => { console.log(servers.map((server) => server.address().port).join()); process.exit(); });`;

/**
 * Waits for its stdin to end, however the test process ends, then removes both hosts with all their programs, and the directory.
 */
const UNDERTAKER = `
cat >/dev/null
rm -rf "$1"; shift
for host in "$@"; do
  while pids=$(ip netns pids "$host") && [ -n "$pids" ]; do kill -9 $pids; done 2>/dev/null
  ip netns del "$host"
done 2>/dev/null
exit 0`;

function sh(script: string): string {
  return execFileSync("sh", ["-ec", script], { encoding: "utf8" });
}

let made = 0;

/** Two network namespaces joined by a veth pair on which every UDP packet is lost and counted, in both directions. */
export class TwoHosts {
  readonly client: Host;
  readonly server: Host;
  /** For the files of a test; removed with the hosts. */
  readonly directory: string;
  readonly #undertaker: ChildProcess;

  constructor() {
    const [a, b] = [`up${process.pid}n${made}a`, `up${process.pid}n${made}b`];
    made += 1;
    this.directory = mkdtempSync(join(tmpdir(), "underpass-e2e-"));
    this.#undertaker = spawn("sh", ["-c", UNDERTAKER, "sh", this.directory, a, b], {
      detached: true, // Ctrl-C in the terminal must not reach it.
      stdio: ["pipe", "ignore", "inherit"],
    });
    sh(
      `ip netns add ${a}; ip netns add ${b}; ip link add veth0 netns ${a} type veth peer name veth0 netns ${b}`,
    );
    this.client = TwoHosts.#setUp(a, 1);
    this.server = TwoHosts.#setUp(b, 2);
  }

  static #setUp(namespace: string, number: number): Host {
    const [ipv4, ipv6] = [`10.77.0.${number}`, `fd77::${number}`];
    // Later fragments have no UDP header. They are useless without the first one, which is never delivered.
    sh(`
      ip -n ${namespace} link set lo up
      ip -n ${namespace} addr add ${ipv4}/24 dev veth0
      ip -n ${namespace} addr add ${ipv6}/64 dev veth0 nodad
      ip -n ${namespace} link set veth0 up
      ip netns exec ${namespace} nft '
        table inet fence {
          counter lost { }
          chain arriving {
            type filter hook prerouting priority raw
            iifname veth0 meta l4proto udp counter name lost drop
          }
        }'`);
    const ports = sh(`ip netns exec ${namespace} ${process.execPath} -e '${ASK_PORTS}'`).trim();
    sh(`ip netns exec ${namespace} sysctl -qw net.ipv4.ip_local_reserved_ports=${ports}`);
    return new Host(namespace, ipv4, ipv6, ports.split(",").map(Number));
  }

  /** UDP packets between the hosts that were dropped since the start. */
  udpDropped(): number {
    let packets = 0;
    for (const { namespace } of [this.client, this.server]) {
      const text = sh(`ip netns exec ${namespace} nft list counter inet fence lost`);
      packets += Number(/packets (\d+)/.exec(text)![1]);
    }
    return packets;
  }

  async killAll(): Promise<void> {
    await Promise.all([this.client.killAll(), this.server.killAll()]);
  }

  /** Kills all programs that still run in the hosts, and deletes the hosts. */
  async close(): Promise<void> {
    await this.killAll();
    const gone = once(this.#undertaker, "exit");
    this.#undertaker.stdin!.end();
    await gone;
  }

  /** The last output of every program of both hosts. */
  transcript(): string {
    const of = (name: string, host: Host) => [`${name}:`, ...host.programs.map((each) => each.transcript())];
    return [...of("client host", this.client), ...of("server host", this.server)].join("\n");
  }
}
