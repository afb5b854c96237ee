import { UsageError } from "../../core/errors.ts";
import { formatEndpoint } from "../addresses/endpoint.ts";
import { formatShadowsocksUri } from "../carriers/shadowsocks-uri.ts";
import { parseConfigText } from "./config-text.ts";

/**
 * Reads the config.json of the shadowsocks programs. Ignores what it says about their own ports and sockets.
 *
 * @param source  name of the text's source, for messages
 * @returns the server as `ss://`, not yet checked
 * @throws UsageError ERR_OPTION with source, line and column
 */
export function parseShadowsocksConfig(source: string, config: string): string {
  const { members, place } = parseConfigText(source, config, undefined);
  const wrong = (name: string, expected: string) =>
    new UsageError("ERR_OPTION", `${place([name])}: ${name}: expected ${expected}`);
  const text = (name: string): string => {
    const value = members.get(name);
    if (typeof value !== "string" || value === "") throw wrong(name, "text");
    return value;
  };
  const optional = (name: string): string | undefined =>
    (members.get(name) ?? "") === "" ? undefined : text(name);

  const hosts = [members.get("server")].flat();
  const [host] = hosts;
  if (hosts.length !== 1 || typeof host !== "string" || host === "") throw wrong("server", "one host");
  const port = members.get("server_port");
  if (typeof port !== "number") throw wrong("server_port", "a port");
  const program = optional("plugin");
  return formatShadowsocksUri({
    server: formatEndpoint(host.replace(/^\[(.*)\]$/, "$1"), port),
    method: text("method"),
    password: text("password"),
    plugin: program === undefined ? undefined : { program, options: optional("plugin_opts") ?? "" },
  });
}
