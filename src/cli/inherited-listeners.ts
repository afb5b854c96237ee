import type { NameField } from "../host/options/fields/fields.ts";
import { libraryName, wrong } from "../host/options/fields/fields.ts";
import { passedDescriptors } from "../node/passed-descriptors.ts";

/**
 * Replaces each `fd:NAME` among the values of `listen` by the sockets of that name that systemd passed, as `fd:N`.
 *
 * @throws UsageError ERR_OPTION for a name without sockets
 */
export function withInheritedListeners<Options extends { readonly listen?: unknown }>(
  options: Options,
  nameField: NameField = libraryName,
  environment: NodeJS.ProcessEnv = process.env,
): Options {
  const { listen } = options;
  if (!Array.isArray(listen)) return options;
  const replaced = listen.flatMap((text: unknown, index) => {
    const name = typeof text === "string" ? /^fd:(.*[^\d].*)$/.exec(text)?.[1] : undefined;
    if (name === undefined) return [text];
    const found = passedDescriptors(name, environment).map((descriptor) => `fd:${descriptor}`);
    if (found.length > 0) return found;
    throw wrong(nameField(["listen", index]), `fd:${name}: systemd passed no socket of this name`);
  });
  return { ...options, listen: replaced };
}
