import { describe, expect, it } from "vitest";
import { silentLogger, UdpLocalHost, UdpServerHost } from "../../../src/host/index.ts";
import { LOCAL, SERVER } from "../memory/memory-exchange.ts";
import { MemoryWorld } from "../memory/memory-system.ts";

const CODE = "ERR_UNSUPPORTED";

describe("a host without TLS, shadowsocks, programs and HTTP/2", () => {
  const { system } = new MemoryWorld();

  it.each([
    ["tls://", "TLS"],
    ["wss://127.0.0.1/tunnel", "TLS"],
    ["ss://aes-128-gcm:secret@127.0.0.1:8388", "ss://"],
  ])("refuses the carrier %s at its start", (hop, what) => {
    const ways = [{ server: "127.0.0.1:3456", via: [hop] }];
    expect(() => new UdpLocalHost({ ...LOCAL, ways }, silentLogger, system)).toThrow(
      expect.objectContaining({ code: CODE, message: `not available in this program: ${what}` }),
    );
  });

  it.each([
    "https://127.0.0.1/{target_host}/{target_port}/",
    "http://127.0.0.1/{target_host}/{target_port}/#http=2",
  ])("refuses the MASQUE proxy %s at its start", (masque) => {
    expect(() => new UdpLocalHost({ ...LOCAL, masque }, silentLogger, system)).toThrow(
      expect.objectContaining({ code: CODE }),
    );
  });

  it.each([
    [{ decoy: "http://127.0.0.1/" }, "a decoy"],
    [{ listen: ["ss://aes-128-gcm:secret@127.0.0.1:8388"] }, "ss://"],
    [{ egress: "exec:tun2socks" }, "the egress exec:"],
  ])("refuses the server's options %o", async (options, what) => {
    const server = new UdpServerHost({ ...SERVER, ...options }, silentLogger, system);
    await expect(server.listen()).rejects.toMatchObject({
      code: CODE,
      message: `not available in this program: ${what}`,
    });
  });
});
