import { describe, expect, it } from "vitest";
import { decodeChecked, encodeChecked } from "../../../src/capi/options/checked-options.ts";
import { gatherOptions } from "../../../src/capi/options/options.ts";
import { UDP_LOCAL_FIELDS } from "../../../src/host/options/fields/udp-local-fields.ts";

const FILE =
  '{\n  // of a program\n  "log-level": "warn",\n  "lanes": 4, "forward": "127.0.0.1:1=127.0.0.1:2"\n}';

function gather(config: object | string, struct: object = {}) {
  const text = typeof config === "string" ? config : JSON.stringify(config);
  const bytes = new Uint8Array([...FILE].map((letter) => letter.charCodeAt(0)));
  return gatherOptions(
    UDP_LOCAL_FIELDS,
    { program: "local", config: text, ...struct },
    () => bytes,
    new Map([["decoy", "is missing here"]]),
  );
}

describe("options of the C library", () => {
  it("written as flags are read like members, and errors name them as flags", () => {
    const { values, nameField } = gather({ "--lanes": "4", "--forward": ["127.0.0.1:1=127.0.0.1:2"] });
    expect(values).toEqual({ lanes: 4, forwards: ["127.0.0.1:1=127.0.0.1:2"] });
    expect(nameField(["forwards", 0])).toBe("--forward");
    // Also one that was not given.
    expect(nameField(["psk"])).toBe("--psk-file");
  });

  it("written as members are named by their place", () => {
    const { nameField } = gather({ lanes: 4 });
    expect(nameField(["lanes"])).toBe("config:1:10: lanes");
    expect(nameField(["psk"])).toBe("psk");
  });

  it.each([
    [{ "--no-such-option": 1 }, "unknown option '--no-such-option'; see --help"],
    [{ "no-such-option": 1 }, 'config:1:2: "no-such-option": unknown option'],
    [{ "log-level": "warn" }, 'config:1:2: "log-level": unknown option'],
    [{ "--lanes": 1, lanes: 2 }, "lanes: is given twice"],
    [{ "--decoy": "/" }, "--decoy: is missing here"],
    [{ decoy: "/" }, "config:1:10: decoy: is missing here"],
  ])("are refused: %j", (config, message) => {
    expect(() => gather(config)).toThrow(message);
  });

  it("come from a file after those given beside it; the program's own members are not options", () => {
    const { values, nameField } = gather({ config: "/etc/file.json", "--lanes": "2" });
    expect(values).toEqual({ lanes: 2, forwards: ["127.0.0.1:1=127.0.0.1:2"] });
    expect(nameField(["forwards", 0])).toBe("/etc/file.json:4:26: forward");
  });

  it("have no listener if the struct has an empty text", () => {
    expect(gather({}, { listen: [""] }).values).toEqual({ listen: false });
  });

  it("of the struct and the config are not mixed: each is given in only one", () => {
    expect(gather({}, { server: "192.0.2.1:1" }).values).toEqual({ server: "192.0.2.1:1" });
    expect(() => gather({ server: "192.0.2.2:1" }, { server: "192.0.2.1:1" })).toThrow(
      "server: is also in config:1:11",
    );
  });

  it("pass from the engine that checks to the one that runs, bytes included", () => {
    const options = {
      psk: Uint8Array.of(1, 2),
      rules: [{ ports: Uint16Array.of(53, 65_535), n: 1 }],
      none: undefined,
    };
    expect(decodeChecked(encodeChecked(options))).toEqual({
      psk: Uint8Array.of(1, 2),
      rules: [{ ports: Uint16Array.of(53, 65_535), n: 1 }],
    });
  });
});
