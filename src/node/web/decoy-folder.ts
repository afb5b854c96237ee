import type { AnswerStranger } from "./decoy.ts";
import { answerStatus } from "./status-page.ts";

/**
 * Serves the files of a folder, with `index.html` for each folder in it. Hidden files do not exist. Symbolic links are followed,
 * because only the operator makes them.
 */
export async function loadFolderDecoy(root: string): Promise<AnswerStranger> {
  // Loaded only if it is used, because most servers have no decoy.
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
        // With a slash, the path means the folder's index.html; a path that begins with two slashes would name another host.
        response.setHeader("Location", `${path.replace(/^\/+/, "/")}/`);
        answerStatus(response, 301);
      })
      .pipe(response);
  };
}
