import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { startUdpServer } from "../../support/start.ts";
import { useOpenServer } from "../peers/open-server.ts";
import { describeWith, run } from "../peers/peer-program.ts";

const H2_CLIENT = fileURLToPath(new URL("../peers/connect-udp-h2.py", import.meta.url));

describeWith(["curl", "python:h2"], "connect-udp over HTTP/2 by clients that are not ours", () => {
  const open = useOpenServer();

  it("h2 reaches one target and several on one connection, and reads every refusal to its end", async () => {
    const output = await run("/usr/bin/python3", [H2_CLIENT, open.port, String(open.echoPort)]);
    expect(output.trim().split("\n")).toHaveLength(4);
  });

  it("curl --http2-prior-knowledge gets a refusal for a request that opens no tunnel", async () => {
    const url = `http://127.0.0.1:${open.port}/`;
    const args = ["-s", "-o", "/dev/null", "-w", "%{http_version} %{http_code}", "--http2-prior-knowledge"];
    expect(await run("curl", [...args, url])).toBe("2 404");
  });

  it("a server tells HTTP/2 from dialects on the same port", async () => {
    const dialects = ["udptunnel", "gnb", "udpgw", "hev", "gost", "uot"];
    const other = await startUdpServer({
      ...{ listen: ["127.0.0.1:0"], allow: ["127.0.0.1/32"] },
      ...{ dialects, dialectTarget: "127.0.0.1:9" },
    });
    try {
      const otherPort = other.address.listen[0].split(":")[1];
      const output = await run("/usr/bin/python3", [H2_CLIENT, otherPort, String(open.echoPort)]);
      expect(output.trim().split("\n")).toHaveLength(4);
    } finally {
      await other.close();
    }
  });
});
