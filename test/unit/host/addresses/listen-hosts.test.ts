import { describe, expect, it } from "vitest";
import { listenHosts, openOnEach } from "../../../../src/host/addresses/listen-hosts.ts";

describe("listenHosts", () => {
  it.each([
    ["[::]:53", [], false, ["::", "0.0.0.0"]],
    ["[0:0::0]:53", [], false, ["0:0::0", "0.0.0.0"]],
    ["[::]:53", [], true, ["::"]],
    ["[::]:53", ["0.0.0.0:53"], false, ["::"]],
    ["[::]:53", ["0.0.0.0:54", "127.0.0.1:53", "unix:/run/a"], false, ["::", "0.0.0.0"]],
    ["[::]:0", ["0.0.0.0:0"], false, ["::", "0.0.0.0"]],
    ["0.0.0.0:53", ["[::]:53"], false, ["0.0.0.0"]],
    ["[::1]:53", [], false, ["::1"]],
  ] as const)("binds %s, beside %j and with ipv6Only %s, to %j", (text, others, ipv6Only, hosts) => {
    expect(listenHosts(text, [...others, text], ipv6Only)).toEqual(hosts);
  });
});

describe("openOnEach", () => {
  /** Opens the entries of `ports` in turn, or fails with an entry's code. Records what is open. */
  function opener(...results: readonly (number | string)[]) {
    const asked: string[] = [];
    const open = new Set<string>();
    let calls = 0;
    return {
      asked,
      open,
      bind: async (host: string, port: number) => {
        asked.push(`${host} ${port}`);
        const result = results[calls++];
        if (typeof result === "string") throw Object.assign(new Error(result), { code: result });
        const name = `${host} ${result}`;
        open.add(name);
        return { port: result, close: () => open.delete(name) };
      },
    };
  }

  it("opens every host on the port that the system chose for the first", async () => {
    const { asked, bind } = opener(4000, 4000);
    expect((await openOnEach(["::", "0.0.0.0"], 0, bind)).map(({ port }) => port)).toEqual([4000, 4000]);
    expect(asked).toEqual([":: 0", "0.0.0.0 4000"]);
  });

  it("has the system choose another port when the first is taken on the second host", async () => {
    const { asked, open, bind } = opener(4000, "EADDRINUSE", 4001, 4001);
    await openOnEach(["::", "0.0.0.0"], 0, bind);
    expect(asked).toEqual([":: 0", "0.0.0.0 4000", ":: 0", "0.0.0.0 4001"]);
    expect([...open]).toEqual([":: 4001", "0.0.0.0 4001"]);
  });

  it("fails, with nothing left open, when the port that was asked for is taken on one host", async () => {
    const { asked, open, bind } = opener(53, "EADDRINUSE");
    await expect(openOnEach(["::", "0.0.0.0"], 53, bind)).rejects.toThrow("EADDRINUSE");
    expect(asked).toHaveLength(2);
    expect(open).toEqual(new Set());
  });

  it.each(["EAFNOSUPPORT", "EADDRNOTAVAIL"])(
    "continues with only IPv4 on a machine without IPv6 (%s)",
    async (code) => {
      const { open, bind } = opener(code, 53);
      expect((await openOnEach(["::", "0.0.0.0"], 53, bind)).map(({ port }) => port)).toEqual([53]);
      expect([...open]).toEqual(["0.0.0.0 53"]);
    },
  );

  it("fails on such a machine if there is no other host, or none that works", async () => {
    await expect(openOnEach(["::"], 53, opener("EAFNOSUPPORT").bind)).rejects.toThrow("EAFNOSUPPORT");
    const none = opener("EAFNOSUPPORT", "EADDRNOTAVAIL");
    await expect(openOnEach(["::", "0.0.0.0"], 53, none.bind)).rejects.toThrow("EADDRNOTAVAIL");
  });

  it("gives up after 16 ports that the second host does not have", async () => {
    const { asked, open, bind } = opener(
      ...Array.from({ length: 40 }, (_, i) => (i % 2 === 0 ? 4000 : "EADDRINUSE")),
    );
    await expect(openOnEach(["::", "0.0.0.0"], 0, bind)).rejects.toThrow("EADDRINUSE");
    expect(asked).toHaveLength(32);
    expect(open).toEqual(new Set());
  });
});
