/** Milliseconds for the rest of the output of a program that has exited. What it has started may hold the pipes for longer. */
const OUTPUT_MS = 5_000;

/**
 * Waits until a program has exited and its pipes have ended, but not long for the latter.
 *
 * @param {import("node:child_process").ChildProcess} child @param {number} [outputMs]
 * @returns {Promise<number>} its status; 1 if it could not be started or was killed
 */
export function childEnd(child, outputMs = OUTPUT_MS) {
  return new Promise((resolve) => {
    child.once("error", (error) => {
      console.error(error.message);
      resolve(1);
    });
    child.once("exit", (code) => {
      const end = () => {
        clearTimeout(deadline);
        // What still holds them must not keep this process alive.
        child.stdout?.destroy();
        child.stderr?.destroy();
        resolve(code ?? 1);
      };
      const deadline = setTimeout(end, outputMs);
      child.once("close", end);
    });
  });
}
