import type { AnswerStranger } from "./decoy.ts";
import { answerStatus } from "./status-page.ts";

/**
 * Serves the files of a folder, `index.html` for a folder in it. Hidden files do not exist. Symbolic links are followed, since
 * only the operator makes them.
 */
export async function loadFolderDecoy(root: string): Promise<AnswerStranger> {
  // Loaded when it is needed, as most servers need none.
  const { default: send } = await import("send");
  return (request, response) => {
    if (request.method !== "GET" && request.method !== "HEAD") {
      response.setHeader("Allow", "GET, HEAD");
      answerStatus(response, 405);
      return;
    }
    const path = (request.url ?? "/").replace(/^https?:\/\/[^/]*/i, "").replace(/[?#].*$/s, "");
    send(request, path.startsWith("/") ? path : "/", { root, dotfiles: "ignore", cacheControl: false })
      .on("error", ({ status }: { status: number }) => answerStatus(response, status))
      .on("directory", () => {
        // With a slash it is the folder's index.html; a path of two slashes would be another host.
        response.setHeader("Location", `${path.replace(/^\/+/, "/")}/`);
        answerStatus(response, 301);
      })
      .pipe(response);
  };
}
