import { access, lstat, unlink } from "node:fs/promises";
import { connect } from "node:net";
import { dirname } from "node:path";

/**
 * Removes a Unix socket that a killed process left, if nothing answers on it. Any other file stays.
 *
 * @throws Error when the folder of `path` does not exist, which Node would report as a missing permission
 */
export async function removeStaleSocket(path: string): Promise<void> {
  await access(dirname(path));
  const found = await lstat(path).catch(() => undefined);
  if (found?.isSocket() !== true) return;
  const code = await new Promise<string | undefined>((done) => {
    const probe = connect({ path });
    probe.once("connect", () => {
      probe.destroy();
      done(undefined);
    });
    probe.once("error", (error: NodeJS.ErrnoException) => done(error.code));
  });
  if (code === "ECONNREFUSED") await unlink(path);
}
