import * as z from "zod";
import { findMasqueProblem, rebaseMasqueProxy } from "../../masque/masque-option.ts";
import type { OptionField } from "./fields.ts";

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
