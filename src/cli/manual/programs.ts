import { DOCTOR_FIELDS } from "../../host/doctor/settings.ts";
import { ADMIN_COMMAND_FIELDS } from "../admin/admin-client.ts";
import { TUN2SOCKS_LINE } from "../command-lines/tun2socks.ts";
import { UDP_LOCAL_LINE } from "../command-lines/udp-local.ts";
import { UDP_SERVER_LINE } from "../command-lines/udp-server.ts";
import { HOST_FIELDS } from "../program-fields.ts";
import type { ProgramCommand, ProgramLine } from "../program-line.ts";

const STATUS: ProgramCommand = {
  name: "status",
  help: "shows the state of a running program through its --admin",
  fields: ADMIN_COMMAND_FIELDS,
  takesAll: false,
};
const TOP: ProgramCommand = {
  ...STATUS,
  name: "top",
  help: "shows the state and the rates of a running program, every second",
};
const DOCTOR: ProgramCommand = {
  name: "doctor",
  help: "checks the way to the server with the same options, names the first fault and shows how to fix it",
  fields: DOCTOR_FIELDS,
  takesAll: true,
};
const KEYGEN: ProgramCommand = {
  name: "keygen",
  help: "prints a new key; with a NAME, as a row for the file of --keys",
  fields: {},
  takesAll: false,
};

/** All programs, with all of their options and commands. */
export const PROGRAMS: readonly ProgramLine[] = [
  { ...UDP_LOCAL_LINE, commands: [STATUS, TOP, DOCTOR] },
  { ...UDP_SERVER_LINE, commands: [STATUS, TOP, KEYGEN] },
  { ...TUN2SOCKS_LINE, commands: [STATUS, TOP, DOCTOR] },
].map((line) => ({ ...line, fields: { ...line.fields, ...HOST_FIELDS } }));
