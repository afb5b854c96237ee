import { spawn } from "node:child_process";
import type { Socket as UdpSocket } from "node:dgram";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { UdpServer } from "../../../src/node/handles.ts";
import type { UdpLocalOptions } from "../../../src/node/options/udp-local.ts";
import { programCommand } from "../../support/hosts.ts";
import { startUdpLocal, startUdpServer } from "../../support/start.ts";
import { expectTunnelEchoes, startUdpEcho } from "../../support/udp-echo.ts";
import type { PeerProgram } from "../peers/peer-program.ts";
import { describeWith, freePort, startPeer } from "../peers/peer-program.ts";

const KEY = new TextEncoder().encode("sixteen byte key");

/** A reverse proxy in front of the server. */
interface ReverseProxy {
  readonly program: string;
  readonly command: (folder: string) => readonly [string, ...string[]];
  /** `FOLDER` stands for the proxy's folder. `upstream`: the port of udp-server; `dead`: a port without a listener. */
  readonly config: (ports: { listen: number; closing: number; upstream: number; dead: number }) => string;
  /** Its name in its answers; undefined if they have none. */
  readonly name: RegExp | undefined;
}

const NGINX_UPGRADE = `proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection "upgrade";`;

const PROXIES: readonly ReverseProxy[] = [
  {
    program: "nginx",
    command: (folder) => ["nginx", "-c", `${folder}/config`],
    name: /nginx\/\S+/,
    config: ({ listen, closing, upstream, dead }) => `daemon off;
master_process off;
pid FOLDER/nginx.pid;
error_log stderr warn;
events {}
http {
  access_log off;
  server {
    listen 127.0.0.1:${listen};
    location / {
      proxy_pass http://127.0.0.1:${upstream}/;
      ${NGINX_UPGRADE}
    }
    location /stripped/ {
      proxy_pass http://127.0.0.1:${upstream}/;
      ${NGINX_UPGRADE}
    }
    location /kept/ {
      proxy_pass http://127.0.0.1:${upstream};
      ${NGINX_UPGRADE}
    }
    location /elsewhere/ {
      return 404;
    }
    location /no-upgrade/ {
      proxy_pass http://127.0.0.1:${upstream}/;
    }
    location /dead/ {
      proxy_pass http://127.0.0.1:${dead}/;
      ${NGINX_UPGRADE}
    }
  }
  server {
    listen 127.0.0.1:${closing};
    keepalive_timeout 0;
    location / {
      proxy_pass http://127.0.0.1:${upstream}/;
      ${NGINX_UPGRADE}
    }
  }
}
`,
  },
  {
    program: "haproxy",
    command: (folder) => ["haproxy", "-db", "-f", `${folder}/config`],
    name: undefined,
    config: ({ listen, closing, upstream, dead }) => `defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout tunnel 60s
frontend paths
  bind 127.0.0.1:${listen}
  http-request return status 404 content-type text/plain string none if { path_beg /elsewhere/ }
  http-request set-path %[path,regsub(^/stripped/,/)]
  http-request del-header Upgrade if { path_beg /no-upgrade/ }
  http-request set-path %[path,regsub(^/no-upgrade/,/)]
  use_backend dead if { path_beg /dead/ }
  default_backend server
frontend closing
  bind 127.0.0.1:${closing}
  option httpclose
  default_backend server
backend server
  server server 127.0.0.1:${upstream}
backend dead
  server dead 127.0.0.1:${dead}
`,
  },
  {
    program: "caddy",
    // Caddy stores files in its home.
    command: (folder) => [
      ...(["env", `HOME=${folder}`, "caddy", "run"] as const),
      ...["--adapter", "caddyfile", "--config", `${folder}/config`],
    ],
    name: /Caddy/,
    config: ({ listen, closing, upstream, dead }) => `{
  admin off
  auto_https off
}
http://127.0.0.1:${listen} {
  handle_path /stripped/* {
    reverse_proxy 127.0.0.1:${upstream}
  }
  handle /elsewhere/* {
    respond 404
  }
  handle_path /no-upgrade/* {
    request_header -Upgrade
    reverse_proxy 127.0.0.1:${upstream}
  }
  handle /dead/* {
    reverse_proxy 127.0.0.1:${dead}
  }
  handle {
    reverse_proxy 127.0.0.1:${upstream}
  }
}
http://127.0.0.1:${closing} {
  header Connection close
  reverse_proxy 127.0.0.1:${upstream}
}
`,
  },
];

describe.each(PROXIES)("behind $program", (proxy) => {
  describeWith([proxy.program, "faketime"], "with a usual configuration", () => {
    const folder = mkdtempSync(join(tmpdir(), `underpass-${proxy.program}-`));
    const ports = { listen: 0, closing: 0, upstream: 0, dead: 0 };
    const refusals: string[] = [];
    let peer: PeerProgram;
    let server: UdpServer;
    let echo: UdpSocket;

    function startProxy(): Promise<PeerProgram> {
      const [program, ...args] = proxy.command(folder);
      return startPeer(program, args, ports.listen);
    }

    beforeAll(async () => {
      echo = await startUdpEcho();
      const quiet = () => {};
      server = await startUdpServer(
        { listen: ["127.0.0.1:0"], psk: KEY, allow: ["127.0.0.1/32"] },
        {
          ...{ info: quiet, warn: quiet, error: quiet },
          debug: (fields, message) => {
            if (message === "refused a connection") refusals.push((fields as { detail: string }).detail);
          },
        },
      );
      ports.upstream = Number(server.address.listen[0].split(":")[1]);
      for (const name of ["listen", "closing", "dead"] as const) ports[name] = await freePort();
      writeFileSync(join(folder, "config"), proxy.config(ports).replaceAll("FOLDER", folder));
      peer = await startProxy();
    });

    afterAll(async () => {
      await peer?.stop();
      echo.close();
      await server.close();
      rmSync(folder, { recursive: true, force: true });
    });

    /** Expects an echo through the proxy; throws the first error. */
    const expectEcho = (options: UdpLocalOptions = {}) =>
      expectTunnelEchoes(echo, { server: `127.0.0.1:${ports.listen}`, psk: KEY, ...options });

    it("carries the tunnel", () => expectEcho());

    it("carries four lanes", () => expectEcho({ lanes: 4 }));

    it("carries the tunnel if each answer ends the client's connection", () =>
      expectEcho({ server: `127.0.0.1:${ports.closing}` }));

    it.each(["/stripped", "/kept"])("carries the tunnel under the path prefix %s", (pathPrefix) =>
      expectEcho({ pathPrefix }),
    );

    it("carries the tunnel for a client whose clock is an hour off", async () => {
      const psk = join(folder, "psk");
      writeFileSync(psk, KEY, { mode: 0o600 });
      const server = `127.0.0.1:${ports.listen}`;
      const local = spawn(
        "faketime",
        [
          ...["-f", "-1h", ...programCommand("udp-local"), "--server", server, "--psk-file", psk],
          ...["--listen", "127.0.0.1:0", "--log-format", "json"],
        ],
        { stdio: ["ignore", "ignore", "pipe"] },
      );
      try {
        for await (const line of createInterface({ input: local.stderr })) {
          const { msg, time } = JSON.parse(line);
          if (time === undefined) continue;
          expect(msg).toBe("session up");
          expect(Math.abs(Date.now() - time - 3_600_000)).toBeLessThan(60_000);
          break;
        }
      } finally {
        // Faketime removes its semaphore only after the program that it started has ended.
        process.kill(
          Number(readFileSync(`/proc/${local.pid}/task/${local.pid}/children`, "utf8")),
          "SIGTERM",
        );
        await once(local, "exit");
      }
    });

    const who = proxy.name?.source ?? "the program that answers there";
    it.each([
      [
        "another key",
        { psk: new TextEncoder().encode("another key of sixteen") },
        "the server has another key",
      ],
      ["no key", { psk: undefined }, "the server requires a key"],
      ["a path that leads elsewhere", { pathPrefix: "/elsewhere" }, `${who} has no udp-server at this path`],
      ["a path that leads nowhere", { pathPrefix: "/dead" }, `${who} does not reach udp-server`],
    ])("names the cause for %s", async (_, options, hint) => {
      await expect(expectEcho(options)).rejects.toThrow(
        new RegExp(`: status 40.: ${hint}|: status 50.: ${hint}`),
      );
    });

    it("names the proxy, if possible, when it does not pass on the upgrade, and the server logs the request", async () => {
      refusals.length = 0;
      const failure = expectEcho({ pathPrefix: "/no-upgrade" });
      const name = proxy.name?.source ?? "something on the way";
      await expect(failure).rejects.toThrow(
        new RegExp(`: status 400: ${name} rewrites the path, or does not pass Upgrade and Connection on`),
      );
      expect(refusals[0]).toMatch(
        /^changed on the way: GET \/\.well-known\/masque\/udp\/\S+ HTTP\/1\.\d; no Upgrade$/,
      );
    });

    it("resumes after the proxy was restarted", async () => {
      const target = `127.0.0.1:${echo.address().port}`;
      const local = await startUdpLocal({
        ...{ server: `127.0.0.1:${ports.listen}`, psk: KEY },
        forwards: [{ listen: "127.0.0.1:0", target }],
      });
      const app = createSocket("udp4");
      const port = Number(local.address.forwards[0].listen.split(":")[1]);
      const ask = async (text: string): Promise<number> => {
        const asked = once(echo, "message");
        app.send(text, port, "127.0.0.1");
        const [, source] = await asked;
        return source.port;
      };
      try {
        await once(local, "session-up");
        const before = await ask("before");
        await peer.stop();
        const resumed = new Promise((done) => local.once("session-resumed", done));
        peer = await startProxy();
        await resumed;
        expect(await ask("after")).toBe(before);
      } finally {
        app.close();
        await local.close();
      }
    });
  });
});
