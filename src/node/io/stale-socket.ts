import { lstat, unlink } from "node:fs/promises";
import { connect } from "node:net";

/** Removes a Unix socket that a killed process left, if nothing answers on it. Any other file stays. */
export async function removeStaleSocket(path: string): Promise<void> {
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
