import { Server } from "node:net";
import { afterEach, expect, it, vi } from "vitest";
import type { HostError } from "../../../src/core/errors.ts";
import { plainTcp } from "../../../src/node/io/tcp-plain.ts";

afterEach(() => vi.restoreAllMocks());

it.each([
  ["EMFILE", false],
  ["ECONNABORTED", false],
  ["EINVAL", true],
  ["EBADF", true],
  ["ENOTSOCK", true],
] as const)(
  "an error %s of a listener of node:net: final is %s, and the listener then stops",
  async (code, isFinal) => {
    const listens = vi.spyOn(Server.prototype, "listen");
    const seen: [code: string, message: string, isFinal: boolean][] = [];
    const listener = await plainTcp.listen(
      { host: "127.0.0.1", port: 0 },
      {
        onStream: () => {},
        onError: (error, final) => seen.push([(error as HostError).code, error.message, final]),
      },
    );
    const server = listens.mock.contexts[0] as Server;
    const text = `accept ${code}`;
    server.emit("error", Object.assign(new Error(text), { code }));
    expect(seen).toEqual(
      isFinal ? [["ERR_LISTEN", `cannot listen: ${listener.address}: ${text}`, true]] : [[code, text, false]],
    );
    expect(server.listening).toBe(!isFinal);
    await listener.close();
  },
);
