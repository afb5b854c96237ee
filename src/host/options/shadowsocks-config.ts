import { UsageError } from "../../core/errors.ts";
import { formatEndpoint } from "../addresses/endpoint.ts";
import { formatShadowsocksUri } from "../carriers/shadowsocks-uri.ts";
import { parseConfigText } from "./config-text.ts";

/**
 * Reads the config.json of shadowsocks' programs. What it says of their own ports and sockets is ignored.
 *
 * @param source  where the text is from, for messages
 * @returns the server as `ss://`, which is not checked yet
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
