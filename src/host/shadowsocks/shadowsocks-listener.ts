import { copyOf } from "../../core/copy-bytes.ts";
import type { ProtocolError } from "../../core/errors.ts";
import { HostError } from "../../core/errors.ts";
import { ReplayGuard } from "../../core/server/admission/replay-guard.ts";
import type { ShadowsocksCryptography } from "../../core/shadowsocks/cryptography.ts";
import { masterKey } from "../../core/shadowsocks/keys.ts";
import { SaltHistory } from "../../core/shadowsocks/salt-history.ts";
import { ShadowsocksServer } from "../../core/shadowsocks/server.ts";
import { ShadowsocksServer2022 } from "../../core/shadowsocks/server-2022.ts";
import type { AdmitSalt, ServerCoding } from "../../core/shadowsocks/server-coding.ts";
import { ObfsHttpServer } from "../../core/simple-obfs/server-http.ts";
import { ObfsTlsServer } from "../../core/simple-obfs/server-tls.ts";
import type { StreamCoding } from "../../core/stream-coding.ts";
import { LayeredCoding } from "../../core/stream-coding.ts";
import { formatHttpDate } from "../../wire/http/http-date.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { parseEndpoint } from "../addresses/endpoint.ts";
import { openOnEach } from "../addresses/listen-hosts.ts";
import { tcpWay } from "../carriers/carrier-chain.ts";
import type { Shadowsocks } from "../carriers/shadowsocks-parameters.ts";
import type { Logger } from "../log.ts";
import type { ShadowsocksListen } from "../options/shadowsocks-listen.ts";
import type { ByteStream } from "../stream/byte-stream.ts";
import { CodedByteStream } from "../stream/byte-stream-coded.ts";
import type { StreamListener } from "../stream/tcp.ts";
import { joinListeners } from "../stream/tcp.ts";
import type { TunnelListenerOptions } from "../stream/tunnel-listener.ts";
import { required } from "../system.ts";
import type { TargetRelayOptions } from "./target-relay.ts";
import { TargetRelay } from "./target-relay.ts";

/** Time limit for a client's head, and for reading and discarding a stranger's bytes: the time-out of ss-server. */
const HEAD_MS = 60_000;
/** Minimum number of SIP004 salts that are remembered. */
const SALTS_2017 = 65_536;
/** SIP022 §3.1.4: salts are remembered for 60 s, with a limit of connections in that time. */
const SALTS_2022_MS = 60_000;
const SALTS_2022 = 65_536;

type Refusal = "half_open_limit" | "bad_credentials" | "replay" | "protocol_error" | "handshake_timeout";

export interface ShadowsocksListenerOptions extends TunnelListenerOptions {
  /** Limit of connections whose target is not known yet, including strangers. Beyond it, the oldest is closed. */
  readonly maxHalfOpen: number;
  /** True for the address of this server's tunnels. */
  readonly isTunnel: (target: AddressBytes) => boolean;
  /** Returns what serves a connection whose target stands for a dialect; undefined for any other target. */
  readonly dialectServer: (target: AddressBytes) => ((stream: ByteStream) => void) | undefined;
  /** Carries connections to all other targets. */
  readonly relay: Omit<TargetRelayOptions, "way">;
  /** How they are reached: "direct", hops as in {@link tcpWay}, or "off". */
  readonly relaysBy: string;
  readonly log: Logger;
  readonly onRefused: (reason: Refusal) => void;
}

/** Listens as a shadowsocks server. @throws HostError ERR_LISTEN, ERR_UNSUPPORTED */
export async function openShadowsocksListener(
  { listen, shadowsocks }: ShadowsocksListen,
  hosts: readonly string[],
  options: ShadowsocksListenerOptions,
): Promise<StreamListener> {
  const { relaysBy, system } = options;
  const way = relaysBy === "off" ? undefined : tcpWay(relaysBy === "direct" ? undefined : relaysBy, system);
  const relay = new TargetRelay({ ...options.relay, way });
  const arrivals = new Arrivals(shadowsocks, relay, options);
  const { port } = parseEndpoint(listen) as { port: number };
  const open = (host: string, boundPort: number) =>
    options.system.io.tcp.listen(
      { host, port: boundPort },
      { onStream: (stream) => arrivals.accept(stream), onError: options.onError },
    );
  try {
    const listener = joinListeners(await openOnEach(hosts, port, open));
    return {
      ...listener,
      address: `ss://${listener.address}`,
      close: async () => {
        const closed = listener.close();
        arrivals.close();
        await relay.close();
        await closed;
      },
    };
  } catch (error) {
    throw new HostError("ERR_LISTEN", `ss://${listen}: ${(error as Error).message}`, { cause: error });
  }
}

/** Connections whose target is not known yet. A client that does not prove its key gets no answer. */
class Arrivals {
  readonly #shadowsocks: Shadowsocks;
  readonly #relay: TargetRelay;
  readonly #options: ShadowsocksListenerOptions;
  readonly #crypto: ShadowsocksCryptography;
  readonly #admit: AdmitSalt;
  /** Oldest first. */
  readonly #halfOpen = new Set<ByteStream>();

  constructor(shadowsocks: Shadowsocks, relay: TargetRelay, options: ShadowsocksListenerOptions) {
    this.#shadowsocks = shadowsocks;
    this.#relay = relay;
    this.#options = options;
    this.#crypto = required(options.system.shadowsocks, "ss://");
    if (shadowsocks.method.is2022) {
      const guard = new ReplayGuard(SALTS_2022_MS, SALTS_2022);
      this.#admit = (salt) => guard.admit(options.system.now(), salt) === "new";
    } else {
      const history = new SaltHistory(SALTS_2017);
      this.#admit = (salt) => history.admit(salt);
    }
  }

  accept(stream: ByteStream): void {
    const { system, maxHalfOpen, onRefused, log } = this.#options;
    if (this.#halfOpen.size >= maxHalfOpen) {
      const [oldest] = this.#halfOpen;
      this.#halfOpen.delete(oldest);
      oldest.destroy();
      onRefused("half_open_limit");
    }
    this.#halfOpen.add(stream);
    const { coding, shadowsocks } = this.#makeCoding();
    const early: Uint8Array[] = [];
    let isStranger = false;
    const timer = system.after(HEAD_MS, () => {
      if (!isStranger) onRefused("handshake_timeout");
      stream.destroy();
    });
    const leave = () => {
      timer.cancel();
      this.#halfOpen.delete(stream);
    };
    stream.start({
      onBytes: (chunk, length) => {
        if (isStranger) return;
        const error = coding.decode(chunk, 0, length, (bytes, offset, end) =>
          early.push(copyOf(bytes.subarray(offset, end))),
        );
        if (error !== undefined) {
          isStranger = true;
          onRefused(refusalOf(error));
          log.debug({ code: error.code, error: error.message }, "discarding the bytes of an ss:// client");
        } else if (shadowsocks.target !== undefined) {
          leave();
          const decoded = new CodedByteStream(system, stream, coding);
          for (const bytes of early.reverse()) decoded.unread(bytes);
          this.#forward(decoded, shadowsocks.target);
        }
      },
      onEnd: () => stream.destroy(),
      onWritten: () => {},
      onClose: leave,
    });
  }

  close(): void {
    for (const stream of this.#halfOpen) stream.destroy();
  }

  #forward(stream: ByteStream, target: AddressBytes): void {
    const { isTunnel, dialectServer, onConnection, heartbeatMs } = this.#options;
    const serve = isTunnel(target) ? onConnection : dialectServer(target);
    if (serve === undefined) {
      void this.#relay.relay(stream, target);
      return;
    }
    stream.tune(heartbeatMs);
    serve(stream);
  }

  #makeCoding(): { coding: StreamCoding; shadowsocks: ServerCoding } {
    const { method, password, obfs } = this.#shadowsocks;
    const { system } = this.#options;
    const crypto = this.#crypto;
    const Server = method.is2022 ? ShadowsocksServer2022 : ShadowsocksServer;
    const key = masterKey(crypto, method, password)!;
    const shadowsocks = new Server(crypto, method, key, this.#admit);
    if (obfs === undefined) return { coding: shadowsocks, shadowsocks };
    const outer =
      obfs.kind === "http"
        ? new ObfsHttpServer(crypto.random, () => formatHttpDate(system.unixMs()))
        : new ObfsTlsServer(crypto.random, crypto.unixSeconds);
    return { coding: new LayeredCoding(shadowsocks, outer), shadowsocks };
  }
}

function refusalOf({ code }: ProtocolError): Refusal {
  if (code === "ERR_SHADOWSOCKS_TAG") return "bad_credentials";
  return code === "ERR_SHADOWSOCKS_REPLAY" ? "replay" : "protocol_error";
}
