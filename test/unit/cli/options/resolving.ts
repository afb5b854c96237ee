import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect } from "vitest";
import { UsageError } from "../../../../src/core/errors.ts";
import type { UdpServerOptions } from "../../../../src/host/options/udp-server.ts";
import type { UdpLocalOptions } from "../../../../src/node/options/udp-local.ts";
import { resolveUdpLocalOptions } from "../../../../src/node/options/udp-local.ts";
import { resolveUdpServerOptions } from "../../../../src/node/options/udp-server.ts";

export const KEY = new TextEncoder().encode("0123456789abcdef");
export const folder = mkdtempSync(join(tmpdir(), "underpass-options-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

// The tests pass wrong values, which the types must not refuse first.
export const resolveLocal = (input: unknown) => resolveUdpLocalOptions(input as UdpLocalOptions);
export const resolveServer = (input: unknown) => resolveUdpServerOptions(input as UdpServerOptions);

/** The thrown UsageError: one line, without the text of its code. */
export function complaint(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    expect(error).toBeInstanceOf(UsageError);
    const { code, message } = error as UsageError;
    expect(code).toBe("ERR_OPTION");
    expect(message).not.toContain("\n");
    return message.replace("an option is missing or wrong: ", "");
  }
  throw new Error("nothing was thrown");
}

export const forward = (target: string) => ({ listen: "127.0.0.1:0", target });

/** @returns the path of a file that only its owner can read */
export function file(name: string, content: string | Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, content, { mode: 0o600 });
  return path;
}
