import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

/** The page of the admin server, and the policy that forbids the page to run anything else. */
export interface Dashboard {
  readonly html: string;
  readonly policy: string;
}

/** Reads the page that the build made. @returns undefined if there is none */
export function loadDashboard(file: URL): Dashboard | undefined {
  let html: string;
  try {
    html = readFileSync(file, "utf8");
  } catch {
    return undefined;
  }
  const policy = [
    "default-src 'none'",
    `script-src ${hashOf(html, "script")}`,
    `style-src ${hashOf(html, "style")}`,
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join("; ");
  return { html, policy };
}

/** The source expression of the page's one inline element of a kind (CSP Level 3 §2.3.1). */
function hashOf(html: string, tag: "script" | "style"): string {
  const start = html.indexOf(`<${tag}>`) + tag.length + 2;
  const text = html.slice(start, html.indexOf(`</${tag}>`, start));
  return `'sha256-${createHash("sha256").update(text).digest("base64")}'`;
}
