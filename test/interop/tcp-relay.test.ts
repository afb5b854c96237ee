import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import type { AddressInfo, Server, Socket } from "node:net";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { UdpLocal } from "../../src/node/handles.ts";
import { startUdpLocal } from "../support/start.ts";
import { startDanted } from "./peers/danted.ts";
import type { PeerProgram } from "./peers/peer-program.ts";
import { describeWith, freePort, run, startPeer } from "./peers/peer-program.ts";

const BIG_BYTES = 3_000_000;

/** Through the proxy in argv: reads to the end, sends a reply, and prints what it read. */
const HEAR_THEN_SPEAK = `
import socks, sys
s = socks.socksocket()
s.set_proxy(socks.SOCKS5, "127.0.0.1", int(sys.argv[1]))
s.settimeout(10)
s.connect(("127.0.0.1", int(sys.argv[2])))
heard = b""
while piece := s.recv(65536): heard += piece
s.sendall(b"late")
s.close()
print(heard.decode())
`;

/** Through the proxy in argv: sends a byte, then resets the connection or waits for its end and prints the kind of end. */
const RESET = `
import socket, socks, struct, sys
s = socks.socksocket()
s.set_proxy(socks.SOCKS5, "127.0.0.1", int(sys.argv[1]))
s.settimeout(10)
s.connect(("127.0.0.1", int(sys.argv[2])))
s.sendall(b"x")
if sys.argv[3] == "reset":
    s.recv(1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()
else:
    try: print("FIN" if s.recv(1) == b"" else "data")
    except ConnectionResetError: print("RST")
`;

/** Sends a SOCKS5 handshake, the request's data and a FIN in one piece, and prints the bytes after the replies. */
const ALL_AT_ONCE = `
import socket, struct, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=10)
s.sendall(b"\\5\\1\\0" + b"\\5\\1\\0\\1\\x7f\\0\\0\\1" + struct.pack("!H", int(sys.argv[2])) + b"question")
s.shutdown(socket.SHUT_WR)
heard = b""
while piece := s.recv(65536): heard += piece
print(heard[12:].decode())
`;

describeWith(["nc", "socat", "danted", "/usr/bin/python3"], "TCP through udp-local's SOCKS5 server", () => {
  const folder = mkdtempSync(join(tmpdir(), "underpass-relay-"));
  const peers: PeerProgram[] = [];
  const locals: UdpLocal[] = [];
  const proxies = { direct: "", "by another udp-local": "", "by danted": "" };
  let target: Server;
  let targetPort: string;
  let handleTarget: (socket: Socket) => void;

  async function openLocal(tcpVia: string | undefined): Promise<string> {
    // Relayed TCP does not use the tunnel.
    const server = `127.0.0.1:${await freePort()}`;
    const local = await startUdpLocal({ server, listen: "127.0.0.1:0", tcpVia });
    locals.push(local);
    return local.address.socks5!.split(":")[1];
  }

  beforeAll(async () => {
    target = createServer({ allowHalfOpen: true }, (socket) => {
      socket.on("error", () => {});
      handleTarget(socket);
    }).listen(0, "127.0.0.1");
    await once(target, "listening");
    targetPort = String((target.address() as AddressInfo).port);
    const dantedPort = await freePort();
    peers.push(await startDanted(folder, dantedPort));
    proxies.direct = await openLocal(undefined);
    proxies["by another udp-local"] = await openLocal(`socks5://127.0.0.1:${proxies.direct}`);
    proxies["by danted"] = await openLocal(`socks5://127.0.0.1:${dantedPort}`);
  });

  afterEach(() => {
    handleTarget = () => {};
  });

  afterAll(async () => {
    for (const local of locals) await local.close();
    for (const peer of peers) await peer.stop();
    target.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const python = (script: string, ...args: string[]) => run("/usr/bin/python3", ["-c", script, ...args]);

  /** Sends `input` and then a FIN with nc. @returns its output */
  async function nc(proxy: string, port: number | string, input: Buffer): Promise<string> {
    const args = ["-N", "-X", "5", "-x", `127.0.0.1:${proxy}`, "127.0.0.1", `${port}`];
    const child = spawn("nc", args, { stdio: ["pipe", "pipe", "inherit"] });
    child.stdin.end(input);
    const pieces: Buffer[] = [];
    child.stdout.on("data", (piece: Buffer) => pieces.push(piece));
    const [status] = await once(child, "close");
    expect(status).toBe(0);
    return Buffer.concat(pieces).toString();
  }

  describe.each(["direct", "by another udp-local", "by danted"] as const)("%s", (way) => {
    it.each([1, BIG_BYTES])("nc -N gets the answer of wc after sending %i bytes and a FIN", async (size) => {
      const port = await freePort();
      const listen = `TCP-LISTEN:${port},bind=127.0.0.1,reuseaddr,fork`;
      const socat = await startPeer("socat", ["-t", "30", listen, "EXEC:wc -c"], port);
      try {
        expect(await nc(proxies[way], port, Buffer.alloc(size, "x"))).toBe(`${size}\n`);
      } finally {
        await socat.stop();
      }
    });

    it("a target that has sent a FIN still receives data from PySocks", async () => {
      const late = new Promise<string>((done) => {
        handleTarget = (socket) => {
          socket.end("hello");
          socket.on("data", (data) => done(data.toString()));
        };
      });
      expect(await python(HEAR_THEN_SPEAK, proxies[way], targetPort)).toBe("hello\n");
      expect(await late).toBe("late");
    });

    it("data and a FIN that arrive with the request are passed on", async () => {
      handleTarget = (socket) => socket.pipe(socket);
      expect(await python(ALL_AT_ONCE, proxies[way], targetPort)).toBe("question\n");
    });
  });

  // danted turns a reset into a FIN.
  describe.each(["direct", "by another udp-local"] as const)("%s", (way) => {
    it("a client's reset resets the target's connection", async () => {
      const outcome = new Promise<string | undefined>((done) => {
        handleTarget = (socket) => {
          socket.once("data", () => socket.write("x"));
          socket.once("close", () => done((socket.errored as NodeJS.ErrnoException | null)?.code));
        };
      });
      await python(RESET, proxies[way], targetPort, "reset");
      expect(await outcome).toBe("ECONNRESET");
    });

    it("a target's reset resets the client's connection", async () => {
      handleTarget = (socket) => socket.once("data", () => socket.resetAndDestroy());
      expect(await python(RESET, proxies[way], targetPort, "wait")).toBe("RST\n");
    });
  });
});
