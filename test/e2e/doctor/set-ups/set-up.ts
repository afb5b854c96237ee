import { fileURLToPath } from "node:url";
import type { ProgramName } from "../../../support/hosts.ts";
import type { PortName, World } from "../world.ts";
import { SS_METHOD, SS_PASSWORD } from "../world.ts";

/** A set-up, and what doctor should find. */
export interface SetUp {
  readonly name: string;
  /** Code of the fault; undefined for a healthy one. */
  readonly fault: string | undefined;
  /** Codes of the warnings. */
  readonly warnings?: readonly string[];
  /** Codes of the notes. */
  readonly notes?: readonly string[];
  /** Measurements, by the name of the step. */
  readonly data?: Readonly<Record<string, object>>;
  readonly options: (world: World) => readonly string[];
  readonly program?: ProgramName;
  /** A command line that runs doctor. */
  readonly wrap?: readonly string[];
  readonly resolver?: string;
  /** The machine's net.core.rmem_max, in bytes. */
  readonly rmemMax?: number;
  /** Default 1 for a fault, else 0. */
  readonly exitStatus?: number;
}

/** Options for a port of the server, with the right key. */
export function to(port: PortName, ...rest: string[]): (world: World) => readonly string[] {
  return ({ server, ports, keyFile }) => [
    "--server",
    `${server}:${ports[port]}`,
    "--psk-file",
    keyFile,
    ...QUICK,
    ...rest,
  ];
}

/** Options for the server's own udp-server, through hops. */
export function through(
  hop: (world: World) => string,
  target: PortName = "tunnel",
): (world: World) => readonly string[] {
  return (world) => [...to(target)(world), "--via", hop(world)];
}

/** Options for the udp-server beside a shadowsocks server, through the latter. */
export function shadowsocks(
  port: PortName,
  target: PortName,
  { method = SS_METHOD, password = SS_PASSWORD, plugin = "" } = {},
): (world: World) => readonly string[] {
  return ({ server, ports, keyFile }) => [
    // The server's own shadowsocks leads only to its tunnels.
    ...[
      "--server",
      `127.0.0.1:${port === "ss2022" ? 3456 : ports[target]}`,
      "--psk-file",
      keyFile,
      ...QUICK,
      "--via",
    ],
    `ss://${method}:${encodeURIComponent(password)}@${server}:${ports[port]}${plugin === "" ? "" : `/?plugin=${encodeURIComponent(plugin)}`}`,
  ];
}

/** Options for a name server that udp-server reaches. */
export function asking(
  dns: (world: World) => string,
  ...rest: string[]
): (world: World) => readonly string[] {
  return (world) => [...to("tunnel")(world), "--test-dns", dns(world), ...rest];
}

export function echoing(echo: (world: World) => string): (world: World) => readonly string[] {
  return (world) => [...to("tunnel")(world), "--test-echo", echo(world)];
}

/** Options with one of the named keys. */
export function person(
  file: "aliceKeyFile" | "expiredKeyFile" | "otherKeyFile",
  ...rest: string[]
): (world: World) => readonly string[] {
  return (world) => {
    const { server, ports, [file]: keyFile } = world;
    return ["--server", `${server}:${ports.keys}`, "--psk-file", keyFile, ...QUICK, ...rest];
  };
}

/** The folders from which the native module is loaded. */
export const NATIVE_BUILDS = ["build", "prebuilds"].map((name) =>
  fileURLToPath(new URL(`../../../../native/${name}`, import.meta.url)),
);
export const TEMPLATE = "/.well-known/masque/udp/{target_host}/{target_port}/";
/** Of the doctor's own options, a set-up's last values count, because the programs refuse an option that is given twice. */
export function lastOfEach(argv: readonly string[]): string[] {
  return argv.filter((word, i) => {
    const flag = word.startsWith("--") ? word : (argv[i - 1] ?? "");
    const at = flag === word ? i : i - 1;
    return !flag.startsWith("--test-") || argv.lastIndexOf(flag) === at;
  });
}
/** They replace those of QUICK. A machine that is busy with other tests must not look like a queue on the way. */
export const MEASURED = ["--test-seconds", "1", "--age-budget-ms", "5000"];
export const QUICK = ["--test-timeout-ms", "1500", "--test-seconds", "0"];
export const proxy =
  (scheme: string, port: PortName, user = "") =>
  (world: World) =>
    `${scheme}://${user}${world.server}:${world.ports[port]}`;
export const secure = (options: (world: World) => string) => (world: World) => [
  ...["--server", `tunnel.test:${world.ports.secure}`, "--psk-file", world.keyFile, ...QUICK],
  ...["--path-prefix", "/good", "--via", `tls://?${options(world)}`],
];
export const ca = ({ caFile }: World) => `ca=${caFile}`;
