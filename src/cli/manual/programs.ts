import { TUN2SOCKS_LINE } from "../command-lines/tun2socks.ts";
import { UDP_LOCAL_LINE } from "../command-lines/udp-local.ts";
import { UDP_SERVER_LINE } from "../command-lines/udp-server.ts";
import type { ProgramLine } from "../program.ts";
import { HOST_FIELDS } from "../program.ts";

/** All programs, with all of their options. */
export const PROGRAMS: readonly ProgramLine[] = [UDP_LOCAL_LINE, UDP_SERVER_LINE, TUN2SOCKS_LINE].map(
  (line) => ({ ...line, fields: { ...line.fields, ...HOST_FIELDS } }),
);
