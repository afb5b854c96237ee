import type { NameField } from "../host/options/fields.ts";
import { libraryName, wrong } from "../host/options/fields.ts";

/** Of the descriptors that systemd passes (sd_listen_fds(3)). */
const FIRST_DESCRIPTOR = 3;

/**
 * Replaces each `fd:NAME` among the values of `listen` by the sockets of that name that systemd has passed, as `fd:N`.
 *
 * @throws UsageError ERR_OPTION for a name of which there is none
 */
export function withInheritedListeners<Options extends { readonly listen?: unknown }>(
  options: Options,
  nameField: NameField = libraryName,
  environment: NodeJS.ProcessEnv = process.env,
): Options {
  const { listen } = options;
  if (!Array.isArray(listen)) return options;
  const names = passedNames(environment);
  const replaced = listen.flatMap((text: unknown, index) => {
    const name = typeof text === "string" ? /^fd:(.*[^\d].*)$/.exec(text)?.[1] : undefined;
    if (name === undefined) return [text];
    const found = names.flatMap((passed, place) => (passed === name ? `fd:${FIRST_DESCRIPTOR + place}` : []));
    if (found.length > 0) return found;
    throw wrong(nameField(["listen", index]), `fd:${name}: systemd has passed no socket of this name`);
  });
  return { ...options, listen: replaced };
}

function passedNames({ LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES = "" }: NodeJS.ProcessEnv): string[] {
  // They may have been meant for a parent of this process.
  if (Number(LISTEN_PID) !== process.pid) return [];
  const names = LISTEN_FDNAMES.split(":");
  return Array.from({ length: Number(LISTEN_FDS) || 0 }, (_, place) => names[place] || "unknown");
}
