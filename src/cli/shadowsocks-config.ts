import { UsageError } from "../core/errors.ts";
import { formatEndpoint } from "../host/addresses/endpoint.ts";
import { formatShadowsocksUri } from "../host/carriers/shadowsocks-uri.ts";
import { readConfigFile } from "./config-file.ts";

/**
 * Reads the config.json of shadowsocks' programs. What it says of their own ports and sockets is ignored.
 *
 * @returns the server as `ss://`, which is not checked yet
 * @throws UsageError ERR_OPTION with file, line and column; HostError ERR_FILE when the file cannot be read
 */
export function readShadowsocksConfig(path: string): string {
  const { members, place } = readConfigFile(path, undefined);
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
