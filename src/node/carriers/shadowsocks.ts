import { ShadowsocksClient } from "../../core/shadowsocks/client.ts";
import { ShadowsocksClient2022 } from "../../core/shadowsocks/client-2022.ts";
import { masterKey } from "../../core/shadowsocks/keys.ts";
import { ObfsHttpClient } from "../../core/simple-obfs/client-http.ts";
import { ObfsTlsClient } from "../../core/simple-obfs/client-tls.ts";
import type { StreamCoding } from "../../core/stream-coding.ts";
import { LayeredCoding } from "../../core/stream-coding.ts";
import type { Obfs, Shadowsocks } from "../../host/carriers/shadowsocks-parameters.ts";
import type { ByteStream } from "../../host/stream/byte-stream.ts";
import { CodedByteStream } from "../../host/stream/byte-stream-coded.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { shadowsocksCryptography } from "../shadowsocks-cryptography.ts";
import { nodeLoop } from "../system.ts";

/** Has the stream to a shadowsocks server lead to `target`. @param port  of the server */
export function wrapInShadowsocks(
  stream: ByteStream,
  { method, password, obfs }: Shadowsocks,
  port: number,
  target: AddressBytes,
): ByteStream {
  const crypto = shadowsocksCryptography;
  const Client = method.is2022 ? ShadowsocksClient2022 : ShadowsocksClient;
  const key = masterKey(crypto, method, password)!;
  const shadowsocks = new Client(crypto, method, key, target);
  return new CodedByteStream(
    nodeLoop,
    stream,
    obfs === undefined ? shadowsocks : new LayeredCoding(shadowsocks, obfsCoding(obfs, port)),
  );
}

function obfsCoding({ kind, host, path, method }: Obfs, port: number): StreamCoding {
  const { random, unixSeconds } = shadowsocksCryptography;
  if (kind === "tls") return new ObfsTlsClient(host, random, unixSeconds);
  return new ObfsHttpClient({ authority: port === 80 ? host : `${host}:${port}`, method, path }, random);
}
