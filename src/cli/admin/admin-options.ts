import * as z from "zod";
import { parseEndpoint, rebaseEndpoint, splitZone } from "../../host/addresses/endpoint.ts";
import { isLoopback } from "../../host/addresses/outgoing.ts";
import { listenText } from "../../host/options/addresses.ts";
import type { NameField, OptionFields } from "../../host/options/fields/fields.ts";
import { wrong } from "../../host/options/fields/fields.ts";
import { makeAddress } from "../../wire/socket-address.ts";

const MIN_TOKEN_BYTES = 16;

/** Subcommands that query a running program through its admin server. */
export const ADMIN_COMMANDS = ["status", "top"] as const;
export type AdminCommand = (typeof ADMIN_COMMANDS)[number];

/** Options for offering the admin server, and for querying it. */
export interface AdminOptions {
  readonly admin?: string;
  readonly adminToken?: Uint8Array;
}

export const ADMIN_FIELDS: OptionFields = {
  admin: {
    schema: z.union([z.string().regex(/^unix:./), listenText]).optional(),
    expects: "IP:PORT or unix:/path",
    flag: "admin",
    value: "ADDRESS",
    help: "serve metrics, health, state and events over HTTP: on loopback, unix:/path, or elsewhere with a token",
    rebase: rebaseEndpoint,
  },
  adminToken: {
    schema: z
      .instanceof(Uint8Array)
      .refine((token) => token.length >= MIN_TOKEN_BYTES && token.every((byte) => byte > 0x20 && byte < 0x7f))
      .optional(),
    expects: `a token of at least ${MIN_TOKEN_BYTES} printable characters without blanks`,
    flag: "admin-token-file",
    value: "FILE",
    help: "file with the token that clients of --admin must send (Authorization: Bearer)",
    isSecretFile: true,
  },
};

/** Checks that the admin server is not open to others by mistake. @throws UsageError ERR_OPTION */
export function checkAdmin({ admin, adminToken }: AdminOptions, nameField: NameField): void {
  if (admin === undefined) {
    if (adminToken !== undefined) throw wrong(nameField(["adminToken"]), "has no effect without --admin");
    return;
  }
  const endpoint = parseEndpoint(admin);
  if (adminToken !== undefined || endpoint.path !== undefined) return;
  if (!isLoopback(makeAddress(splitZone(endpoint.host).ip, 0)!)) {
    throw wrong(nameField(["admin"]), `${admin} is not loopback: also give --admin-token-file`);
  }
}
