import { spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import { withInheritedListeners } from "../../../src/cli/inherited-listeners.ts";
import { programCommand } from "../../support/hosts.ts";
import { startUdpLocal } from "../../support/start.ts";
import { startUdpEcho } from "../../support/udp-echo.ts";
import { describeWith, freePort, startPeer } from "../peers/peer-program.ts";

const HOLDER = fileURLToPath(new URL("../peers/socket-holder.py", import.meta.url));

describeWith(["systemd-socket-activate"], "udp-server --listen fd:NAME", () => {
  const folder = mkdtempSync(join(tmpdir(), "underpass-activation-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it("serves tunnels on a TCP and a Unix socket that systemd passes under a name", async () => {
    const psk = Buffer.from("0123456789abcdef0123456789abcdef");
    const keyFile = join(folder, "psk");
    writeFileSync(keyFile, psk, { mode: 0o600 });
    const echo = await startUdpEcho();
    const [port, path] = [await freePort(), join(folder, "socket")];
    const io = process.env.UNDERPASS_IO;
    const sockets = ["-l", `127.0.0.1:${port}`, "-l", path, "--fdname=tunnels:tunnels"];
    const options = ["--listen", "fd:tunnels", "--psk-file", keyFile, "--allow", "127.0.0.1/32"];
    // The first connection starts the server.
    const activated = await startPeer(
      "systemd-socket-activate",
      [
        ...[...sockets, ...programCommand("udp-server"), ...options],
        ...(io === undefined ? [] : ["--io", io]),
      ],
      port,
    );
    try {
      for (const server of [`127.0.0.1:${port}`, `unix:${path}`]) {
        const target = `127.0.0.1:${echo.address().port}`;
        // Datagrams queued while the server starts are not lost.
        const ageBudgetMs = 60_000;
        const forwards = [{ listen: "127.0.0.1:0", target }];
        const local = await startUdpLocal({ server, psk, ageBudgetMs, forwards });
        const application = createSocket("udp4");
        const answer = once(application, "message");
        const [, forwardPort] = local.address.forwards[0].listen.split(":");
        application.send(server, Number(forwardPort), "127.0.0.1");
        expect(String((await answer)[0])).toBe(server);
        application.close();
        await local.close();
      }
    } finally {
      await activated.stop();
      echo.close();
    }
  });
});

describeWith(
  ["/usr/bin/python3"],
  "udp-server that is restarted while something else keeps its socket",
  () => {
    it("never refuses connections, and every flow of a busy client continues", async () => {
      const folder = mkdtempSync(join(tmpdir(), "underpass-restart-"));
      const psk = Buffer.from("0123456789abcdef0123456789abcdef");
      const keyFile = join(folder, "psk");
      writeFileSync(keyFile, psk, { mode: 0o600 });
      const echo = await startUdpEcho();
      const options = [
        "--listen",
        "fd:tunnels",
        "--psk-file",
        keyFile,
        "--allow",
        "127.0.0.1/32",
        "--workers",
        "1",
      ];
      const holder = spawn("/usr/bin/python3", [HOLDER, ...programCommand("udp-server"), ...options], {
        stdio: ["ignore", "pipe", "ignore"],
      });
      const lines = createInterface({ input: holder.stdout })[Symbol.asyncIterator]();
      const next = async () => Number((await lines.next()).value);
      const [port, first] = [await next(), await next()];
      const local = await startUdpLocal({
        ...{ listen: false, server: `127.0.0.1:${port}`, psk, ageBudgetMs: 5_000 },
        forwards: [{ listen: "127.0.0.1:0", target: `127.0.0.1:${echo.address().port}` }],
      });
      const errors: string[] = [];
      local.on("error", (error: Error) => errors.push(error.message));
      const forward = Number(local.address.forwards[0].listen.split(":").at(-1));
      const flows = Array.from({ length: 50 }, () => ({ socket: createSocket("udp4"), answers: 0 }));
      for (const flow of flows) flow.socket.on("message", () => flow.answers++);
      const load = setInterval(() => {
        for (const { socket } of flows) socket.send(Buffer.alloc(200), forward, "127.0.0.1");
      }, 20);
      const allAnswered = async () => {
        const before = flows.map(({ answers }) => answers);
        while (!flows.every(({ answers }, i) => answers > before[i])) await sleep(20);
      };
      try {
        await allAnswered();
        process.kill(first, "SIGTERM");
        await next();
        await once(local, "session-up");
        await allAnswered();
        expect(errors.filter((text) => text.includes("ECONNREFUSED"))).toEqual([]);
        expect(local.stats()).toMatchObject({ associations: 50, sessions: 1 });
      } finally {
        clearInterval(load);
        for (const { socket } of flows) socket.close();
        await local.close();
        holder.kill();
        await once(holder, "exit");
        echo.close();
        rmSync(folder, { recursive: true });
      }
    });
  },
);

describe("Sockets that systemd passes", () => {
  const passed = (names: string, pid = process.pid) => ({
    LISTEN_PID: String(pid),
    LISTEN_FDS: String(names.split(":").length),
    LISTEN_FDNAMES: names,
  });

  it("are used by name, including all with the same name, beside other values", () => {
    const given = { listen: ["127.0.0.1:1", "fd:a", "fd:7"], other: 1 };
    expect(withInheritedListeners(given, undefined, passed("a:b:a"))).toEqual({
      listen: ["127.0.0.1:1", "fd:3", "fd:5", "fd:7"],
      other: 1,
    });
  });

  it("are refused with the option's name if none has the wanted name or they belong to another process", () => {
    const named = ([option, index]: readonly PropertyKey[]) => `--${String(option)} ${String(index)}`;
    for (const environment of [{}, passed("b"), passed("a", process.pid + 1)]) {
      expect(() => withInheritedListeners({ listen: ["fd:a"] }, named, environment)).toThrow(
        "--listen 0: fd:a: systemd passed no socket of this name",
      );
    }
  });

  it("are not looked up in invalid values", () => {
    const wrong = { listen: 5 };
    expect(withInheritedListeners(wrong, undefined, passed("a"))).toBe(wrong);
  });
});
