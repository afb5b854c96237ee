import * as z from "zod";
import type { OptionField } from "../options/fields.ts";
import { findMasqueProblem, rebaseMasqueProxy } from "./masque-option.ts";

/** Options of udp-local that mean something to a udp-server alone. */
export const NOT_WITH_MASQUE = [
  "server",
  "ways",
  "psk",
  "pathPrefix",
  "carrier",
  "dialect",
  "lanes",
] as const;

export const MASQUE_FIELD: OptionField = {
  schema: z
    .string()
    .superRefine((text, context) => {
      const problem = findMasqueProblem(text);
      if (problem !== undefined) context.addIssue({ code: "custom", params: { problem } });
    })
    .optional(),
  expects: "a template, such as https://HOST/.well-known/masque/udp/{target_host}/{target_port}/",
  flag: "masque",
  value: "TEMPLATE",
  help: "standard MASQUE proxy (RFC 9298) instead of a udp-server: https://HOST/...{target_host}...{target_port}...",
  rebase: rebaseMasqueProxy,
};
