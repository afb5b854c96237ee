import { writeFileSync } from "node:fs";
import { userInfo } from "node:os";
import { join } from "node:path";
import type { PeerProgram } from "./peer-program.ts";
import { startPeer } from "./peer-program.ts";

/** Starts Dante's SOCKS server without authentication on a port of 127.0.0.1, with its files in `folder`. */
export function startDanted(folder: string, port: number): Promise<PeerProgram> {
  const config = join(folder, "danted.conf");
  writeFileSync(
    config,
    `logoutput: stderr
internal: 127.0.0.1 port = ${port}
external: 127.0.0.1
socksmethod: none
clientmethod: none
user.unprivileged: ${userInfo().username}
client pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }
socks pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }
`,
  );
  return startPeer("danted", ["-f", config, "-p", join(folder, "danted.pid")], port);
}
