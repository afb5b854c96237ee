import { randomBytes } from "node:crypto";
import { UsageError } from "../core/errors.ts";
import { isKeyName, KEY_NAME_EXPECTS } from "../host/options/keys.ts";

/** 256 random bits, as text that editors and shells leave unchanged. */
const KEY_BYTES = 32;

const HELP = `Usage: udp-server keygen [NAME]

Prints a new key: alone for --psk-file, or, with a NAME, as a row for the file of --keys.

Examples:
  umask 077; udp-server keygen > psk
  udp-server keygen alice
`;

/** Prints a new key. @throws UsageError ERR_OPTION */
export function runKeygen(argv: readonly string[]): void {
  const [name, ...rest] = argv;
  if (name === "--help" || name === "-h") {
    process.stdout.write(HELP);
    return;
  }
  // A name may begin with "-", but nobody means that.
  if (name?.startsWith("-")) throw new UsageError("ERR_OPTION", `unknown option '${name}'; see --help`);
  if (rest.length > 0) throw new UsageError("ERR_OPTION", "keygen: expected at most one name; see --help");
  if (name !== undefined && !isKeyName(name)) {
    throw new UsageError("ERR_OPTION", `keygen: ${JSON.stringify(name)}: expected ${KEY_NAME_EXPECTS}`);
  }
  const key = randomBytes(KEY_BYTES).toString("base64url");
  process.stdout.write(name === undefined ? `${key}\n` : `  "${name}": { "key": "${key}" },\n`);
}
