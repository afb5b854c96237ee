import * as z from "zod";
import type { OptionField } from "../../host/options/fields.ts";
import { findMasqueProblem, rebaseMasqueProxy } from "./masque-option.ts";

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
