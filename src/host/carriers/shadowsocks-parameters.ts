import { isPassword } from "../../core/shadowsocks/keys.ts";
import type { Method } from "../../core/shadowsocks/method.ts";
import { METHODS } from "../../core/shadowsocks/method.ts";
import type { Plugin } from "./plugin-options.ts";
import { parsePluginOptions } from "./plugin-options.ts";

/** simple-obfs, built in. */
export interface Obfs {
  readonly kind: "http" | "tls";
  readonly host: string;
  readonly path: string;
  readonly method: string;
}

/** The parameters of a shadowsocks server, except its address, that a client needs. */
export interface Shadowsocks {
  readonly method: Method;
  readonly password: string;
  readonly obfs: Obfs | undefined;
  /** A plugin that runs as a program and connects to the server itself. */
  readonly plugin: Plugin | undefined;
}

/** The host that obfs-local sends by default. */
const DEFAULT_OBFS_HOST = "cloudfront.net";
/** Options of obfs-local that do not change what it sends. */
const OBFS_LOCAL_ALONE = ["fast-open", "mptcp", "nofile", "reuse-port"];

/** @returns the problem with the values, without quoting them */
export function readShadowsocks(
  methodName: string,
  password: string,
  plugin: Plugin | undefined,
): Shadowsocks | string {
  const method = Object.hasOwn(METHODS, methodName) ? METHODS[methodName] : undefined;
  if (method === undefined) return `expected one of the methods ${Object.keys(METHODS).join(", ")}`;
  if (!isPassword(method, password)) {
    return method.is2022
      ? `${methodName} needs one key of ${method.keyBytes} bytes in base64 as its password`
      : "expected a password";
  }
  if (plugin === undefined) return { method, password, obfs: undefined, plugin: undefined };
  if (!["obfs-local", "simple-obfs"].includes(plugin.program)) {
    return { method, password, obfs: undefined, plugin };
  }
  const obfs = readObfs(plugin.options);
  return typeof obfs === "string" ? obfs : { method, password, obfs, plugin: undefined };
}

function readObfs(text: string): Obfs | string {
  const options = parsePluginOptions(text);
  for (const name of options.keys()) {
    const isKnown = ["obfs", "obfs-host", "obfs-uri", "http-method", ...OBFS_LOCAL_ALONE].includes(name);
    if (!isKnown) return "obfs-local accepts only the options obfs, obfs-host, obfs-uri and http-method";
  }
  const kind = options.get("obfs");
  if (kind !== "http" && kind !== "tls") return "obfs-local needs obfs=http or obfs=tls";
  const host = options.get("obfs-host") ?? DEFAULT_OBFS_HOST;
  const path = options.get("obfs-uri") ?? "/";
  const method = options.get("http-method") ?? "GET";
  if (!/^[\x21-\x7e]{1,255}$/.test(host)) return "obfs-host must be a name of 1 to 255 printable characters";
  if (!/^\/[\x21-\x7e]{0,1023}$/.test(path)) return "obfs-uri must be a path that begins with a slash";
  if (!/^[A-Z]{1,16}$/.test(method)) return "http-method must be a word such as GET";
  return { kind, host, path, method };
}
