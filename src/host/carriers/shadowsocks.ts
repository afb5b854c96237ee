import { ShadowsocksClient } from "../../core/shadowsocks/client.ts";
import { ShadowsocksClient2022 } from "../../core/shadowsocks/client-2022.ts";
import type { ShadowsocksCryptography } from "../../core/shadowsocks/cryptography.ts";
import { masterKey } from "../../core/shadowsocks/keys.ts";
import { ObfsHttpClient } from "../../core/simple-obfs/client-http.ts";
import { ObfsTlsClient } from "../../core/simple-obfs/client-tls.ts";
import type { StreamCoding } from "../../core/stream-coding.ts";
import { LayeredCoding } from "../../core/stream-coding.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import type { ByteStream } from "../stream/byte-stream.ts";
import { CodedByteStream } from "../stream/byte-stream-coded.ts";
import type { System } from "../system.ts";
import { required } from "../system.ts";
import type { Obfs, Shadowsocks } from "./shadowsocks-parameters.ts";

/**
 * Makes the stream to a shadowsocks server lead to `target`.
 *
 * @param port  of the server
 * @throws HostError ERR_UNSUPPORTED
 */
export function wrapInShadowsocks(
  system: System,
  stream: ByteStream,
  { method, password, obfs }: Shadowsocks,
  port: number,
  target: AddressBytes,
): ByteStream {
  const crypto = required(system.shadowsocks, "ss://");
  const Client = method.is2022 ? ShadowsocksClient2022 : ShadowsocksClient;
  const key = masterKey(crypto, method, password)!;
  const shadowsocks = new Client(crypto, method, key, target);
  return new CodedByteStream(
    system,
    stream,
    obfs === undefined ? shadowsocks : new LayeredCoding(shadowsocks, obfsCoding(crypto, obfs, port)),
  );
}

function obfsCoding(
  { random, unixSeconds }: ShadowsocksCryptography,
  { kind, host, path, method }: Obfs,
  port: number,
): StreamCoding {
  if (kind === "tls") return new ObfsTlsClient(host, random, unixSeconds);
  return new ObfsHttpClient({ authority: port === 80 ? host : `${host}:${port}`, method, path }, random);
}
