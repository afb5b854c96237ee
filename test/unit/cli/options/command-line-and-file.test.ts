import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { CommandLine } from "../../../../src/cli/option-sources.ts";
import { gatherOptions } from "../../../../src/cli/option-sources.ts";
import { HostError } from "../../../../src/core/errors.ts";
import { resolveUdpLocalOptions, UDP_LOCAL_FIELDS } from "../../../../src/node/options/udp-local.ts";
import { resolveUdpServerOptions, UDP_SERVER_FIELDS } from "../../../../src/node/options/udp-server.ts";
import { complaint, file, folder, KEY } from "./resolving.ts";

describe("command line and config file", () => {
  const local: CommandLine = {
    name: "udp-local",
    description: "",
    version: "0",
    examples: [],
    fields: {
      ...UDP_LOCAL_FIELDS,
      config: { ...UDP_LOCAL_FIELDS.server, flag: "config", value: "FILE", isList: false },
    },
  };
  const gather = (...argv: string[]) => gatherOptions(local, argv)!;
  const config = (members: unknown) => file("config.json", JSON.stringify(members));

  it("the command line and the file accept the library's options under the names of the flags", () => {
    const { values } = gather(
      "--age-budget-ms",
      "50",
      "--forward",
      "a",
      "--forward",
      "b",
      "--idle-timeout",
      "9",
    );
    expect(values).toEqual({ ageBudgetMs: 50, forwards: ["a", "b"], idleTimeoutS: 9 });
    const members = { "age-budget-ms": 50, forward: ["a", "b"], listen: false };
    expect(gather("--config", config(members)).values).toMatchObject({
      ageBudgetMs: 50,
      forwards: ["a", "b"],
      listen: false,
    });
  });

  it("an option that is no list is refused if it is given twice, whatever its values", () => {
    const single = Object.values(local.fields).filter(({ flag, value, isList }) => flag && value && !isList);
    expect(single.length).toBeGreaterThan(20);
    for (const { flag } of single) {
      expect(complaint(() => gather(`--${flag}`, "a", `--${flag}=b`))).toBe(`--${flag}: is given twice`);
      expect(complaint(() => gather(`--${flag}=`, `--${flag}`, "a"))).toBe(`--${flag}: is given twice`);
    }
  });

  it("flags override the file, and lists replace lists", () => {
    const path = config({ lanes: 2, "queue-bytes": 200_000, via: ["unix:/a", "unix:/b"] });
    const { values } = gather("--config", path, "--lanes", "3", "--via", "unix:/c");
    expect(values).toMatchObject({ lanes: 3, queueBytes: 200_000, via: ["unix:/c"] });
  });

  it("an error names the flag or the place in the file where the wrong value is", () => {
    const path = config({ lanes: 99, via: ["unix:/a", "b"] });
    const check = (...argv: string[]) => {
      const { values, nameField } = gather("--config", path, ...argv);
      const { config: _, ...options } = values;
      return complaint(() => resolveUdpLocalOptions(options, nameField));
    };
    expect(check("--lanes", "x")).toMatch(/config\.json:1:30: via\[1\]: .*, got "b"$/);
    expect(check("--lanes", "x", "--via", "unix:/a")).toBe(
      '--lanes: expected auto or an integer from 1 to 16, got "x"',
    );
    expect(check("--via", "unix:/a")).toMatch(
      /config\.json:1:10: lanes: expected auto or an integer from 1 to 16, got 99$/,
    );
  });

  it.each(["1e1", "0x10", " 2", "2 ", "", "Infinity", "2,0"])("%j is not read as a number", (text) => {
    const { values, nameField } = gather("--lanes", text);
    expect(complaint(() => resolveUdpLocalOptions(values, nameField))).toBe(
      `--lanes: expected auto or an integer from 1 to 16, got ${JSON.stringify(text)}`,
    );
  });

  it("secrets are read from files, whose paths are returned so that their modes can be checked", () => {
    const key = file("key", "0123456789abcdef\n");
    const auth = file("auth", "alice:pass:word\n");
    const fromFlags = gather("--psk-file", key, "--socks-auth-file", auth);
    const expected = { psk: Buffer.from(KEY), socksAuth: { user: "alice", password: "pass:word" } };
    expect(fromFlags.values).toEqual(expected);
    expect(new Set(fromFlags.secretFiles.values())).toEqual(new Set([key, auth]));
    const fromFile = gather("--config", config({ "psk-file": key, "socks-auth-file": auth }));
    expect(fromFile.values).toMatchObject(expected);
    expect(new Set(fromFile.secretFiles.values())).toEqual(new Set([key, auth]));
  });

  it("udp-server listens as the server of shadowsocks' config.json, besides its other listeners", () => {
    const config = {
      server: "0.0.0.0",
      server_port: 8388,
      password: "p",
      method: "aes-256-gcm",
      plugin: "obfs-server",
      plugin_opts: "obfs=tls",
    };
    const line = { ...local, name: "udp-server", fields: UDP_SERVER_FIELDS };
    const path = file("ss.json", JSON.stringify(config));
    const url = "ss://aes-256-gcm:p@0.0.0.0:8388/?plugin=obfs-server%3Bobfs%3Dtls";
    const { values } = gatherOptions(line, ["--ss-config", path])!;
    expect(values.shadowsocks).toBe(url);
    // The listener has a password, so it needs no key of ours.
    expect(resolveUdpServerOptions(values).listen).toEqual([url]);
    const both = resolveUdpServerOptions({ ...values, listen: ["127.0.0.1:1"] });
    expect(both.listen).toEqual(["127.0.0.1:1", url]);
    expect(resolveUdpServerOptions({}).listen).toEqual(["127.0.0.1:3456"]);
  });

  it.each([
    [
      { listen: ["ss://aes-256-gcm:hunter2@h:1"] },
      /^listen\[0\]: expected IP:PORT, .*got "ss:\/\/\*\*\*@h:1"$/,
    ],
    [{ listen: ["ss://rc4-md5:hunter2@127.0.0.1:1"] }, /^listen\[0\]: expected/],
    [
      { listen: ["ss://aes-256-gcm:hunter2@127.0.0.1:1?plugin=v2ray-plugin;server"] },
      /^listen\[0\]: expected/,
    ],
    [{ shadowsocks: "ss://aes-256-gcm:hunter2@h:1" }, /^shadowsocks: expected a server's config\.json.*any$/],
    [{ ssRelay: "socks5://alice:hunter2@h" }, /^ssRelay: expected off, direct or socks5:.*\*\*\*@h"$/],
    [{ ssRelay: "on" }, /^ssRelay: expected off, direct or socks5:/],
  ])("udp-server refuses %j without its password", (options, message) => {
    const text = complaint(() => resolveUdpServerOptions(options));
    expect(text).toMatch(message);
    expect(text).not.toContain("hunter2");
  });

  it("shadowsocks' config.json adds a carrier, which also carries TCP unless another way is given", () => {
    const config = {
      server: ["::1"],
      server_port: 8388,
      local_port: 1080,
      password: "pä:ss@/",
      method: "aes-256-gcm",
      plugin: "obfs-local",
      plugin_opts: "obfs=http;obfs-host=a.test",
    };
    const path = file("ss.json", `// comment\n${JSON.stringify(config)}`);
    const { values, secretFiles } = gather("--ss-config", path, "--via", "unix:/a");
    expect([...secretFiles.values()]).toEqual([path]);
    const url =
      "ss://aes-256-gcm:p%C3%A4%3Ass%40%2F@[::1]:8388/?plugin=obfs-local%3Bobfs%3Dhttp%3Bobfs-host%3Da.test";
    expect(values.shadowsocks).toBe(url);
    expect(resolveUdpLocalOptions(values)).toMatchObject({
      ways: [{ via: ["unix:/a", url] }],
      tcpVia: [url],
    });
    const other = { ...values, tcpVia: "socks5://h:1" };
    expect(resolveUdpLocalOptions(other)).toMatchObject({
      ways: [{ via: ["unix:/a", url] }],
      tcpVia: ["socks5://h:1"],
    });
  });

  it.each([
    [{ server: ["a", "b"] }, /ss\.json:1:11: server: expected one host/],
    [{ server: "a", server_port: "8388" }, /server_port: expected a port/],
    [{ server: "a", server_port: 8388, method: "aes-256-gcm" }, /password: expected text/],
    [{ server: "a", server_port: 8388, password: 7, method: "x" }, /method|password: expected text/],
    [{ server: "a", server_port: 8388, password: "p", method: "m", plugin: 7 }, /plugin: expected text/],
  ])("the shadowsocks config %j is refused with its place", (members, message) => {
    expect(complaint(() => gather("--ss-config", file("ss.json", JSON.stringify(members))))).toMatch(message);
  });

  it("a wrong value of a shadowsocks config is reported without the password", () => {
    const members = { server: "a", server_port: 8388, password: "hunter2", method: "rc4-md5" };
    const { values, nameField } = gather("--ss-config", file("ss.json", JSON.stringify(members)));
    const message = complaint(() => resolveUdpLocalOptions(values, nameField));
    expect(message).toMatch(/^--ss-config: expected one of the methods/);
    expect(message).not.toContain("hunter2");
  });

  it("an error names a file that is unreadable or holds no USER:PASSWORD, and shows none of it", () => {
    const missing = join(folder, "missing");
    for (const flag of ["--psk-file", "--socks-auth-file", "--config"]) {
      expect(() => gather(flag, missing)).toThrow(HostError);
      expect(() => gather(flag, missing)).toThrow(`${missing}: no such file or directory (ENOENT)`);
    }
    const message = complaint(() => gather("--socks-auth-file", file("auth", "hunter2")));
    expect(message).toMatch(/auth: expected one line USER:PASSWORD$/);
  });

  it.each([
    ['{"via":["socks5://u:hunter2@h:1",', /config\.json:1:34: not JSON: value expected$/],
    ['{"lanes": hunter2}', /config\.json:1:11: not JSON: invalid symbol$/],
    ['{\r\n  "lanes": 2\r\n  "listen": "hunter2"}', /config\.json:3:3: not JSON: comma expected$/],
    ['{\n\n"via": ["hunter2]\n}', /config\.json:3:9: not JSON: unexpected end of string$/],
    ['{"lanes": 2} "hunter2"', /config\.json:1:14: not JSON: end of file expected$/],
    ['\ufeff{"lanes" 2}', /config\.json:1:10: not JSON: colon expected$/],
    ["{ /* hunter2 }", /config\.json:1:3: not JSON: unexpected end of comment$/],
    ["", /config\.json:1:1: not JSON: value expected$/],
    ["[]", /config\.json:1:1: expected one object$/],
    ["// none\nnull", /config\.json:2:1: expected one object$/],
    ['{"psk":"hunter2"}', /config\.json:1:2: "psk": unknown option$/],
    ['{\n\t"ageBudgetMs":1}', /config\.json:2:2: "ageBudgetMs": unknown option$/],
    ['{"config":"other.json"}', /config\.json:1:2: "config": unknown option$/],
    ['{"__proto__":{"lanes":2}}', /config\.json:1:2: "__proto__": unknown option$/],
    ['{"lanes": 2,\n "lanes": 3}', /config\.json:2:2: "lanes" is given twice$/],
  ])("the file %j is refused in one line without its secrets", (text, pattern) => {
    const message = complaint(() => gather("--config", file("config.json", text)));
    expect(message).toMatch(pattern);
    expect(message).not.toContain("hunter2");
  });

  it("a config file in UTF-16 is refused, and one that is not UTF-8", () => {
    const path = file("config.json", Buffer.from('\ufeff{"lanes":2}', "utf16le"));
    expect(complaint(() => gather("--config", path))).toBe(`${path}: is UTF-16: save it as UTF-8`);
    file("config.json", Buffer.from('{"listen":"caf\xe9:1"}', "latin1"));
    expect(complaint(() => gather("--config", path))).toBe(`${path}: is not UTF-8`);
  });

  it("a config file may have a byte-order mark, CRLF, comments, trailing commas and lists of one without brackets", () => {
    const text = [
      "\ufeff// The tunnel.",
      "{",
      '  "server": "192.0.2.1:3456", // behind /* nothing */',
      '  /* nearest first,\r\n     "lanes": 9 */',
      '  "via": "socks5://127.0.0.1:1080",',
      '  "forward": [ "127.0.0.1:53=9.9.9.9:53", ],',
      "}",
      "",
    ].join("\r\n");
    expect(gather("--config", file("config.json", text)).values).toEqual({
      server: ["192.0.2.1:3456"],
      via: ["socks5://127.0.0.1:1080"],
      forwards: ["127.0.0.1:53=9.9.9.9:53"],
      config: join(folder, "config.json"),
    });
  });

  it.each([
    ['{\n  "via": "b"}', /config\.json:2:10: via: expected .*, got "b"$/],
    ['{\n  "via":\n [ "unix:/a",\n   "b"]}', /config\.json:4:4: via\[1\]: expected .*, got "b"$/],
    ['{"forward": [{"listen": "[::1]:0",\n"target": "a:0"}]}', /:2:11: forward\[0\]\.target: .*, got "a:0"$/],
    [
      '{"forward": [{"listen": "[::1]:0", "target": "a:1",\n"to": 1}]}',
      /config\.json:2:7: forward\[0\]\.to: unknown option$/,
    ],
    ['{"via": 5}', /config\.json:1:9: via: expected .*, got 5$/],
    ['{\n"listen": false}', /config\.json:2:11: listen: is off and there are no forwards/],
    [
      '{\n"via": "tls://?ca=none.pem"}',
      /:2:8: via: a file cannot be read or written: \/.*\/none\.pem: no such file or directory \(ENOENT\)$/,
    ],
  ])("an error points at the line and column of what is wrong in %j", (text, pattern) => {
    const { values, nameField } = gather("--config", file("config.json", text));
    const { config: _, ...options } = values;
    expect(complaint(() => resolveUdpLocalOptions(options, nameField))).toMatch(pattern);
  });

  it("relative paths in a config file start in its folder, those in flags in the working directory", () => {
    file("key", "0123456789abcdef");
    const path = config({
      "psk-file": "key",
      server: "unix:run/a",
      via: ["unix:../b", "tls://h:1?ca=tls/ca%20x.pem&insecure=1&cert=/c&key=k", "tls://", "socks5://a/b:1"],
    });
    expect(gather("--config", path).values).toMatchObject({
      psk: Buffer.from(KEY),
      server: [`unix:${folder}/run/a`],
      via: [
        `unix:${join(folder, "../b")}`,
        `tls://h:1?ca=${folder}/tls/ca%20x.pem&insecure=1&cert=/c&key=${folder}/k`,
        "tls://",
        "socks5://a/b:1",
      ],
    });
    expect(gather("--server", "unix:run/a", "--via", "tls://?ca=c").values).toEqual({
      server: ["unix:run/a"],
      via: ["tls://?ca=c"],
    });
  });

  it("the paths in ways, and in hops for TCP, start in the config file's folder", () => {
    const path = config({ way: ["unix:a tls://?ca=b", "c:1"], "tcp-via": "tls://h:1?ca=b socks5://h:1" });
    expect(gather("--config", path).values).toMatchObject({
      ways: [`unix:${folder}/a tls://?ca=${folder}/b`, "c:1"],
      tcpVia: [`tls://h:1?ca=${folder}/b socks5://h:1`],
    });
  });

  it.each([
    ["unix:packets", `unix:${folder}/packets`],
    ["exec:./tun2socks --device pipe:", `exec:["${folder}/tun2socks","--device","pipe:"]`],
    ["exec:tun2socks --config a/b", "exec:tun2socks --config a/b"],
    ["tun2socks:direct", "tun2socks:direct"],
  ])("the egress %s in a config file becomes %s", (egress, led) => {
    const path = config({ egress });
    const fields = { ...UDP_SERVER_FIELDS, config: local.fields.config };
    expect(gatherOptions({ ...local, fields }, ["--config", path])!.values).toMatchObject({ egress: led });
  });

  it.each([
    [["--psk=hunter2"], "unknown option '--psk'; see --help"],
    [["hunter2"], /^too many arguments/],
    [["--lanes"], "option '--lanes <N>' argument missing; see --help"],
  ])("the command line %j is refused in one line without what may be a key", (argv, wanted) => {
    const message = complaint(() => gather(...argv));
    expect(message).toMatch(wanted);
    expect(message).not.toContain("hunter2");
  });
});
