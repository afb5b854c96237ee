import { chmodSync } from "node:fs";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { createServer } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { performance } from "node:perf_hooks";
import { HostError } from "../../core/errors.ts";
import { formatEndpoint, parseEndpoint } from "../../host/addresses/endpoint.ts";
import { HalfOpen } from "../../host/half-open.ts";
import type { Logger } from "../../host/log.ts";
import type { EndpointStatus, FlowStatus } from "../../host/stats/status.ts";
import type { TunnelStats } from "../../host/stats/tunnel-stats.ts";
import { acceptErrors } from "../../host/stream/tcp.ts";
import { removeStaleSocket } from "../io/stale-socket.ts";
import { acceptError } from "../io/tcp-plain.ts";
import { systemReason } from "../system-text.ts";
import { Admission } from "./admission.ts";
import type { Dashboard } from "./dashboard.ts";
import { EventStreams } from "./event-streams.ts";
import { explainCounts } from "./explained.ts";
import { Exposition } from "./exposition.ts";
import { flowsAsJson } from "./flows-as-json.ts";

const MAX_CONNECTIONS = 64;
const MAX_EVENT_STREAMS = 16;
/** Beyond so many connections without a request, each has its place only until another needs it. */
const WAITING_GRACE = 16;
const MAX_HEAD_BYTES = 8_192;
const HEAD_MS = 5_000;
/** How long a connection may be silent in both directions. */
const SILENCE_MS = 10_000;
/** Time limit for a whole answer. */
const ANSWER_MS = 20_000;
const STATS_MS = 1_000;

/** These paths reveal only that a program runs, and need no token; the page asks for it. */
const OPEN_PATHS = ["/", "/healthz", "/readyz"];

/** Why an endpoint does not do its work. */
export type NotReady = "closing" | "a listener has failed" | "no session";

/** The running endpoint that the server shows. */
export interface Shown {
  readonly program: string;
  readonly version: string;
  readonly address: unknown;
  stats(): TunnelStats;
  status(): Promise<EndpointStatus>;
  flows(): Promise<FlowStatus>;
  /** @returns why the endpoint is not ready; undefined if it is */
  reasonAgainst(): NotReady | undefined;
  /** The page at `/`; undefined for none. */
  readonly dashboard: Dashboard | undefined;
  /** Calls `listener` for each event. @returns a function that removes it */
  onEvent(listener: (name: string, value: unknown) => void): () => void;
  readonly log: Logger;
  /** The admin server accepts no more connections; those that it has continue. */
  handleListenerFailed(error: Error): void;
}

/** The contents of /status. */
export interface AdminStatus extends EndpointStatus {
  readonly program: string;
  readonly version: string;
  readonly versions: Readonly<Record<string, string | undefined>>;
  readonly pid: number;
  readonly uptimeS: number;
  readonly isReady: boolean;
  readonly address: unknown;
  readonly stats: TunnelStats;
  /** The reasons that have occurred since the start, with their remedies. */
  readonly explained: ReturnType<typeof explainCounts>;
}

/** Serves operators over HTTP: metrics, health, state and events of a running endpoint. It changes nothing. */
export class AdminServer {
  readonly #shown: Shown;
  readonly #admission: Admission;
  readonly #exposition: Exposition;
  readonly #streams = new EventStreams(MAX_EVENT_STREAMS);
  readonly #server: Server;
  readonly #startedAt = Date.now() / 1000 - process.uptime();
  readonly #stopEvents: () => void;
  readonly #statsTimer: NodeJS.Timeout;
  readonly #hasToken: boolean;
  /** All connections, those whose request is being answered, and the others. */
  readonly #sockets = new Set<Socket>();
  readonly #answering = new Set<Socket>();
  readonly #waiting = new HalfOpen<Socket>(WAITING_GRACE);
  /** The list of flows that is being made; requests at the same time share it. */
  #flows: Promise<Buffer> | undefined;
  #showsAddresses = false;
  #isClosing = false;
  #address = "";

  private constructor(shown: Shown, token: Uint8Array | undefined) {
    this.#shown = shown;
    this.#hasToken = token !== undefined;
    this.#admission = new Admission(token);
    const { program, version } = shown;
    this.#exposition = new Exposition(() => shown.stats(), { program, version, startedAt: this.#startedAt });
    this.#server = createServer(
      {
        maxHeaderSize: MAX_HEAD_BYTES,
        headersTimeout: HEAD_MS,
        requestTimeout: HEAD_MS,
        keepAliveTimeout: HEAD_MS,
        connectionsCheckingInterval: 1_000,
      },
      (request, response) => void this.#answer(request, response),
    );
    this.#server.timeout = SILENCE_MS;
    this.#server.on("connection", (socket) => this.#admit(socket));
    this.#stopEvents = shown.onEvent((name, value) => this.#streams.send(name, plainValue(value)));
    this.#statsTimer = setInterval(() => {
      if (this.#streams.size > 0) this.#streams.send("stats", shown.stats());
    }, STATS_MS).unref();
  }

  /**
   * @param address  `IP:PORT` or `unix:/path`; only the owner can open the socket
   * @throws HostError ERR_LISTEN
   */
  static async listen(address: string, token: Uint8Array | undefined, shown: Shown): Promise<AdminServer> {
    const admin = new AdminServer(shown, token);
    try {
      await admin.#listen(address);
    } catch (cause) {
      await admin.close();
      throw new HostError("ERR_LISTEN", `admin ${address}: ${systemReason(cause)}`, { cause });
    }
    return admin;
  }

  /** The address it listens on, with the real port instead of a port 0. */
  get address(): string {
    return this.#address;
  }

  async #listen(address: string): Promise<void> {
    const endpoint = parseEndpoint(address);
    if (endpoint.path !== undefined) await removeStaleSocket(endpoint.path);
    await new Promise<void>((done, failed) => {
      this.#server.once("error", failed);
      const listening = () => {
        this.#server.off("error", failed);
        const bound = this.#server.address() as AddressInfo;
        this.#address = endpoint.path === undefined ? formatEndpoint(endpoint.host, bound.port) : address;
        // The program goes on without new operators.
        const onError = acceptErrors(this.#shown.log, (error) => this.#shown.handleListenerFailed(error));
        this.#server.on("error", acceptError(this.#server, `admin ${this.#address}`, onError));
        done();
      };
      if (endpoint.path === undefined) this.#server.listen(endpoint, listening);
      else {
        // The call makes the socket, which nobody else may open.
        const mask = process.umask(0o177);
        this.#server.listen(endpoint.path, listening);
        process.umask(mask);
      }
    });
    // On loopback, every user of the host may ask.
    this.#showsAddresses = this.#hasToken || endpoint.path !== undefined;
    if (endpoint.path !== undefined) chmodSync(endpoint.path, 0o600);
  }

  async close(): Promise<void> {
    this.#isClosing = true;
    this.#stopEvents();
    clearInterval(this.#statsTimer);
    // Its listener may have failed, which leaves connections.
    const closed = this.#server.listening && new Promise((done) => this.#server.close(done));
    this.#server.closeAllConnections();
    await closed;
  }

  #admit(socket: Socket): void {
    if (this.#sockets.size >= MAX_CONNECTIONS) {
      const loser = this.#waiting.givingWay(performance.now()) ?? socket;
      this.#forget(loser);
      loser.destroy();
      if (loser === socket) return;
    }
    this.#sockets.add(socket);
    this.#waiting.add(socket, performance.now());
    socket.on("close", () => this.#forget(socket));
  }

  #forget(socket: Socket): void {
    this.#sockets.delete(socket);
    this.#waiting.delete(socket);
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { socket } = request;
    if (this.#answering.has(socket)) {
      // Each answer takes memory until it is read, and one read may bring thousands of pipelined requests.
      socket.destroy();
      return;
    }
    this.#answering.add(socket);
    this.#waiting.delete(socket);
    response.on("close", () => {
      this.#answering.delete(socket);
      if (this.#sockets.has(socket)) this.#waiting.add(socket, performance.now());
    });
    const path = (request.url ?? "/").split("?", 1)[0];
    response.setHeader("cache-control", "no-store");
    response.setHeader("x-content-type-options", "nosniff");
    response.setHeader("content-security-policy", "default-src 'none'");
    const refusal = this.#admission.refusalOf(request, OPEN_PATHS.includes(path));
    if (refusal !== undefined) {
      if (refusal.status === 401) response.setHeader("www-authenticate", "Bearer");
      if (refusal.status === 405) response.setHeader("allow", "GET, HEAD");
      // Bytes after the head are not read.
      response.setHeader("connection", "close");
      send(response, refusal.status, "text/plain; charset=utf-8", `${refusal.reason}\n`);
      return;
    }
    try {
      const { dashboard } = this.#shown;
      if (path === "/events") this.#stream(request, response);
      else if (path === "/" && dashboard !== undefined) {
        response.setHeader("content-security-policy", dashboard.policy);
        send(response, 200, "text/html; charset=utf-8", dashboard.html);
      } else {
        const { status, type, body } = await this.#page(path, request);
        send(response, status, type, body);
      }
    } catch {
      response.destroy();
    }
  }

  async #page(path: string, { headers }: IncomingMessage) {
    const text = (status: number, body: string) => ({
      status,
      type: "text/plain; charset=utf-8",
      body: `${body}\n`,
    });
    switch (path) {
      case "/healthz":
        return text(200, "ok");
      case "/readyz":
        return text(this.#reasonAgainst === undefined ? 200 : 503, this.#reasonAgainst ?? "ready");
      case "/metrics": {
        const isOpenMetrics = (headers.accept ?? "").includes("application/openmetrics-text");
        return { status: 200, ...(await this.#exposition.scrape(isOpenMetrics)) };
      }
      case "/status":
        return { status: 200, type: "application/json", body: JSON.stringify(await this.#status()) };
      case "/flows": {
        this.#flows ??= this.#listFlows().finally(() => {
          this.#flows = undefined;
        });
        return { status: 200, type: "application/json", body: await this.#flows };
      }
      default:
        return text(404, "/metrics, /healthz, /readyz, /status, /flows and /events are here");
    }
  }

  async #listFlows(): Promise<Buffer> {
    return Buffer.from(await flowsAsJson(await this.#shown.flows(), this.#showsAddresses));
  }

  get #reasonAgainst(): NotReady | undefined {
    return this.#isClosing ? "closing" : this.#shown.reasonAgainst();
  }

  async #status(): Promise<AdminStatus> {
    const { program, version, address } = this.#shown;
    const { node, uv, openssl } = process.versions;
    const stats = this.#shown.stats();
    return {
      ...{ program, version, versions: { node, uv, openssl }, pid: process.pid },
      uptimeS: Math.round(process.uptime()),
      isReady: this.#reasonAgainst === undefined,
      ...{ address, stats, explained: explainCounts(stats) },
      ...(await this.#shown.status()),
    };
  }

  #stream(request: IncomingMessage, response: ServerResponse): void {
    if (request.method === "HEAD" || !this.#streams.add(response)) {
      send(
        response,
        request.method === "HEAD" ? 200 : 503,
        "text/plain; charset=utf-8",
        "too many event streams\n",
      );
      return;
    }
    this.#streams.send("stats", this.#shown.stats());
  }
}

function send(response: ServerResponse, status: number, type: string, body: string | Buffer): void {
  const timer = setTimeout(() => response.destroy(), ANSWER_MS).unref();
  response.on("close", () => clearTimeout(timer));
  response.writeHead(status, { "content-type": type, "content-length": Buffer.byteLength(body) });
  response.end(body);
}

/** Converts a value of an event to one that JSON can express. */
function plainValue(value: unknown): unknown {
  if (!(value instanceof Error)) return value ?? {};
  return { message: value.message, code: (value as Error & { code?: string }).code };
}
