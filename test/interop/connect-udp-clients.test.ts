import type { Socket as UdpSocket } from "node:dgram";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { UdpServer } from "../../src/node/handles.ts";
import { startUdpServer } from "../../src/node/udp-server.ts";
import { describeWith, run } from "./peer-program.ts";

const H11_CLIENT = fileURLToPath(new URL("connect-udp-h11.py", import.meta.url));

describeWith(["curl", "nc", "python:h11"], "connect-udp by HTTP clients that are not ours", () => {
  let server: UdpServer;
  let echo: UdpSocket;
  let port: string;

  beforeAll(async () => {
    echo = createSocket("udp4");
    echo.on("message", (data, remote) => echo.send(data, remote.port, remote.address));
    echo.bind(0, "127.0.0.1");
    await once(echo, "listening");
    server = await startUdpServer({ listen: ["127.0.0.1:0"], allow: ["127.0.0.1/32"] });
    port = server.address.listen[0].split(":")[1];
  });

  afterAll(async () => {
    echo.close();
    await server.close();
  });

  it("h11 switches protocols, reaches one target and many, and reads every refusal to its end", async () => {
    const output = await run("/usr/bin/python3", [H11_CLIENT, port, String(echo.address().port)]);
    expect(output.trim().split("\n")).toHaveLength(3);
  });

  it.each([
    ["192.0.2.1/0", "400"],
    ["%2A/%2A", "400"],
    ["10.0.0.1/53", "403"],
    ["nowhere.invalid/53", "502"],
  ])("curl gets the refusal of %s", async (target, status) => {
    const fields = ["-H", "Connection: Upgrade", "-H", "Upgrade: connect-udp"];
    const url = `http://127.0.0.1:${port}/.well-known/masque/udp/${target}/`;
    expect(await run("curl", ["-s", "-o", "/dev/null", "-w", "%{http_code}", ...fields, url])).toBe(status);
  });

  it("nc -N, which ends its side behind the request, gets the answer", async () => {
    const ask = (target: string) =>
      run("sh", [
        "-c",
        `printf 'GET /.well-known/masque/udp/${target}/ HTTP/1.1\\r\\nHost: a\\r\\nConnection: Upgrade\\r\\nUpgrade: connect-udp\\r\\n\\r\\n' | nc -N 127.0.0.1 ${port}`,
      ]);
    expect(await ask("192.0.2.1/0")).toMatch(/^HTTP\/1.1 400 /);
    expect(await ask("nowhere.invalid/53")).toMatch(/^HTTP\/1.1 502 /);
  });
});
