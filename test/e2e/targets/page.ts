import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { TwoHosts } from "../network/two-hosts.ts";

const PAGE_BYTES = 10 * 1024 * 1024;

/** Starts a web server for one page of {@link PAGE_BYTES} on all addresses of the server host. @returns its port */
export async function startPage({ server, directory }: TwoHosts): Promise<number> {
  const port = server.port();
  writeFileSync(join(directory, "page"), Buffer.alloc(PAGE_BYTES, "0123456789abcdef-"));
  server.spawn(["python3", "-m", "http.server", "--bind", "::", "--directory", directory, `${port}`]);
  await server.waitForTcp(server.ipv4, port);
  return port;
}

/** Fetches the page on the client host and compares it byte by byte. */
export async function fetchPage(
  { client, directory }: TwoHosts,
  address: string,
  port: number,
): Promise<void> {
  const host = address.includes(":") ? `[${address}]` : address;
  const fetch = `curl -sS -m 30 http://${host}:${port}/page | cmp - ${join(directory, "page")}`;
  await client.run(["sh", "-c", fetch], { timeoutMs: 40_000 });
}
