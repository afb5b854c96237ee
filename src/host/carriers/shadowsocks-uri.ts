import { decodeBase64 } from "../../wire/base64.ts";
import { utf8Text } from "../../wire/http/http-head.ts";
import type { Plugin } from "./plugin-options.ts";
import { parsePlugin } from "./plugin-options.ts";

/** The parts of `ss://USERINFO@HOST:PORT/?plugin=NAME;OPTIONS#TAG` (SIP002), decoded. */
export interface ShadowsocksUri {
  /** `HOST:PORT` as written. */
  readonly server: string;
  readonly method: string;
  readonly password: string;
  readonly plugin: Plugin | undefined;
}

/** @returns the problem with the text, without quoting it */
export function parseShadowsocksUri(text: string): ShadowsocksUri | string {
  const match = /^ss:\/\/([^@?#]*)@([^@/?#]*)\/?(?:\?([^#]*))?(?:#.*)?$/s.exec(text);
  if (match === null)
    return "expected ss://METHOD:PASSWORD@HOST:PORT[/?plugin=NAME%3BOPTIONS][#TAG] (SIP002)";
  const [, userInfo, server, query] = match;
  let plugin: Plugin | undefined;
  try {
    for (const option of (query ?? "").split("&")) {
      const at = option.indexOf("=");
      const name = decodeURIComponent(at < 0 ? option : option.slice(0, at));
      const value = decodeURIComponent(at < 0 ? "" : option.slice(at + 1));
      if (name === "plugin" && plugin !== undefined) return "plugin is given twice";
      if (name === "plugin" && value !== "") plugin = parsePlugin(value);
      else if (name !== "" && name !== "plugin") return "expected no options but plugin";
    }
  } catch {
    return "expected percent-encoded options";
  }
  const pair = decodeUserInfo(userInfo);
  if (pair === undefined) return "expected METHOD:PASSWORD, percent-encoded or in base64url";
  const colon = pair.indexOf(":");
  return { server, method: pair.slice(0, colon), password: pair.slice(colon + 1), plugin };
}

/** Writes what {@link parseShadowsocksUri} reads. */
export function formatShadowsocksUri({ server, method, password, plugin }: ShadowsocksUri): string {
  const query =
    plugin === undefined
      ? ""
      : `/?plugin=${encodeURIComponent(`${plugin.program.replace(/[\\;]/g, "\\$&")};${plugin.options}`)}`;
  return `ss://${encodeURIComponent(method)}:${encodeURIComponent(password)}@${server}${query}`;
}

/** @returns `METHOD:PASSWORD` */
function decodeUserInfo(text: string): string | undefined {
  try {
    const plain = decodeURIComponent(text);
    if (text.includes(":")) return plain;
    // Base64 in either alphabet, with or without padding.
    const base64 = plain.replaceAll("-", "+").replaceAll("_", "/").replace(/=+$/, "");
    const bytes = decodeBase64(base64.padEnd(Math.ceil(base64.length / 4) * 4, "="));
    if (bytes === undefined) return undefined;
    const pair = utf8Text(bytes);
    return pair?.includes(":") ? pair : undefined;
  } catch {
    return undefined;
  }
}
