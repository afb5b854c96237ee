import { HostError, UsageError } from "../core/errors.ts";
import { parseHop } from "../host/carriers/hop.ts";
import { embeddersOwn } from "../host/options/fields.ts";
import { resolveUdpLocal, UDP_LOCAL_FIELDS } from "../host/options/udp-local-fields.ts";
import { resolveUdpServer, UDP_SERVER_FIELDS } from "../host/options/udp-server-fields.ts";
import type { FileHost, StartFailure, StartOptions } from "./c-host.ts";
import { checkHops, checkOffered, MISSING_OF_LOCAL, MISSING_OF_SERVER } from "./offered.ts";
import { gatherOptions } from "./options.ts";
import { readFile } from "./read-file.ts";
import { findTlsFilesProblem } from "./tls-files.ts";

/**
 * What capi/src/instance.c calls first, in an engine that is closed after it: the tables of options are not needed any more then.
 *
 * @returns all options with their defaults as JSON, bytes as lists of numbers; or what is wrong with them
 */
function underpassCheck(host: FileHost, start: StartOptions): string | StartFailure {
  try {
    const check = start.program === "local" ? checkLocal : checkServer;
    const options = check(host, start);
    return JSON.stringify(options, (_, value) => (value instanceof Uint8Array ? [...value] : value));
  } catch (error) {
    if (error instanceof UsageError || error instanceof HostError) {
      return { status: error.status, text: error.message };
    }
    throw error;
  }
}

const CARRIER_FIELD = embeddersOwn<true>((value) => value === true, "functions");

function checkLocal(host: FileHost, start: StartOptions): object {
  const gathered = gatherOptions(UDP_LOCAL_FIELDS, start, (path) => readFile(host, path), MISSING_OF_LOCAL);
  const { nameField } = gathered;
  const values = { ...gathered.values, carrier: start.hasCarrier };
  const platform = {
    fields: { ...UDP_LOCAL_FIELDS, carrier: CARRIER_FIELD },
    findTlsProblem: (hop: string) => findTlsProblem(host, hop),
  };
  // Then there may be associations without sockets.
  const hasAssociations = gathered.values.listen === false;
  const options = resolveUdpLocal(platform, values, nameField, hasAssociations);
  checkOffered(options, nameField);
  for (const { via } of options.ways) checkHops(via, nameField(["via"]));
  checkHops(options.tcpVia, nameField(["tcpVia"]));
  return options;
}

function findTlsProblem(host: FileHost, text: string): string | undefined {
  const hop = parseHop(text, 0);
  return hop.kind === "tls" ? findTlsFilesProblem(host, hop.options) : undefined;
}

function checkServer(host: FileHost, start: StartOptions): object {
  const { values, nameField } = gatherOptions(
    UDP_SERVER_FIELDS,
    start,
    (path) => readFile(host, path),
    MISSING_OF_SERVER,
  );
  const platform = { fields: UDP_SERVER_FIELDS, findDecoyProblem: () => undefined };
  const options = resolveUdpServer(platform, values, nameField);
  checkOffered(options, nameField);
  return options;
}

Object.assign(globalThis, { underpassCheck });
