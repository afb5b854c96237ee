import { resolve } from "node:path";
import * as z from "zod";
import { rebaseEgress } from "../../host/options/egress-option.ts";
import type { NameField, OptionField } from "../../host/options/fields/fields.ts";
import {
  UDP_SERVER_FIELDS as HOST_FIELDS,
  resolveUdpServer,
} from "../../host/options/fields/udp-server-fields.ts";
import type { ResolvedUdpServerOptions, UdpServerOptions } from "../../host/options/udp-server.ts";

export { checkKeys } from "../../host/options/keys.ts";

import { findDecoyProblem, parseDecoy, rebaseDecoy } from "../web/decoy.ts";

export const UDP_SERVER_FIELDS = {
  ...HOST_FIELDS,
  egress: {
    ...HOST_FIELDS.egress,
    rebase: (text, inFolder) => rebaseEgress(text, inFolder, resolve),
  },
  keepSessions: {
    schema: z.boolean().optional(),
    expects: "true or false",
    flag: "keep-sessions",
    help: "keep sessions and source ports while systemd restarts the service (FileDescriptorStoreMax=, docs/operate/operating.md)",
  },
  decoy: {
    schema: z
      .string()
      .refine((text) => parseDecoy(text) !== undefined)
      .optional(),
    expects: "a folder, or http://HOST[:PORT][/PATH] or https:// of a web server",
    flag: "decoy",
    value: "URL|FOLDER",
    help: "what strangers see instead of 404: the files of a folder, or a web server",
    rebase: rebaseDecoy,
  },
} satisfies Record<keyof UdpServerOptions, OptionField>;

/**
 * Fills the defaults in, checks every field, and prevents an open relay by mistake.
 *
 * @throws UsageError ERR_OPTION: one line with the field's path, its value unless it is secret, and what is wanted
 */
export function resolveUdpServerOptions(
  input: UdpServerOptions,
  nameField?: NameField,
): ResolvedUdpServerOptions {
  return resolveUdpServer({ fields: UDP_SERVER_FIELDS, findDecoyProblem }, input, nameField);
}
