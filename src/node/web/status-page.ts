import type { ServerResponse } from "node:http";
import { STATUS_CODES } from "node:http";

/** Answers with a page that reveals only the status, like core's refusals. */
export function answerStatus(response: ServerResponse, status: number): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  const title = `${status} ${STATUS_CODES[status]}`;
  const page = `<html><head><title>${title}</title></head><body><h1>${title}</h1></body></html>\n`;
  response.writeHead(status, { "Content-Type": "text/html", "Content-Length": page.length });
  response.end(page);
}
