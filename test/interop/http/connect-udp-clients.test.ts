import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { useOpenServer } from "../peers/open-server.ts";
import { describeWith, run } from "../peers/peer-program.ts";

const H11_CLIENT = fileURLToPath(new URL("../peers/connect-udp-h11.py", import.meta.url));

describeWith(["curl", "nc", "python:h11"], "connect-udp by HTTP clients that are not ours", () => {
  const open = useOpenServer();

  it("h11 switches protocols, reaches one target and several, and reads every refusal to its end", async () => {
    const output = await run("/usr/bin/python3", [H11_CLIENT, open.port, String(open.echoPort)]);
    expect(output.trim().split("\n")).toHaveLength(3);
  });

  it.each([
    ["192.0.2.1/0", "400"],
    ["%2A/%2A", "400"],
    ["10.0.0.1/53", "403"],
    ["nowhere.invalid/53", "502"],
  ])("curl gets the refusal of %s", async (target, status) => {
    const fields = ["-H", "Connection: Upgrade", "-H", "Upgrade: connect-udp"];
    const url = `http://127.0.0.1:${open.port}/.well-known/masque/udp/${target}/`;
    expect(await run("curl", ["-s", "-o", "/dev/null", "-w", "%{http_code}", ...fields, url])).toBe(status);
  });

  it("nc -N, which sends a FIN after the request, gets the answer", async () => {
    const ask = (target: string) =>
      run("sh", [
        "-c",
        `printf 'GET /.well-known/masque/udp/${target}/ HTTP/1.1\\r\\nHost: a\\r\\nConnection: Upgrade\\r\\nUpgrade: connect-udp\\r\\n\\r\\n' | nc -N 127.0.0.1 ${open.port}`,
      ]);
    expect(await ask("192.0.2.1/0")).toMatch(/^HTTP\/1.1 400 /);
    expect(await ask("nowhere.invalid/53")).toMatch(/^HTTP\/1.1 502 /);
  });
});
