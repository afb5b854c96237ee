import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { ERROR_CODES, HostError } from "../../../src/core/errors.ts";
import type { Check, Step } from "../../../src/host/doctor/checks/check.ts";
import { skipped, walk } from "../../../src/host/doctor/checks/check.ts";
import { asFailure, TLS_ALERT } from "../../../src/host/doctor/failures.ts";
import { FINDINGS, finding } from "../../../src/host/doctor/findings.ts";
import { Redaction, redactText } from "../../../src/host/doctor/redaction.ts";
import { DOCTOR_FIELDS } from "../../../src/host/doctor/settings.ts";
import { TUN2SOCKS_FIELDS } from "../../../src/node/options/tun2socks.ts";
import type { UdpLocalOptions } from "../../../src/node/options/udp-local.ts";
import { resolveUdpLocalOptions } from "../../../src/node/options/udp-local.ts";
import { SET_UPS } from "../../e2e/doctor/set-ups.ts";
import { doctorDocument } from "../documents/doctor-document.ts";

const SETTINGS = { testTimeoutMs: 1, testSeconds: 0, testName: "example.com" };

function redaction(options: UdpLocalOptions, rest: object = {}): Redaction {
  const { carrier: _, ...resolved } = resolveUdpLocalOptions(options);
  return new Redaction(resolved, { ...SETTINGS, ...rest });
}

describe("a TLS alert is recognised in the texts of", () => {
  const lost = ERROR_CODES.ERR_CONNECTION_LOST.text;
  it.each([
    ["OpenSSL 3.0", "sslv3 alert bad certificate"],
    ["OpenSSL 3.2", "ssl/tls alert bad certificate"],
    ["TLS 1.2", "tlsv1 alert unknown ca"],
    ["TLS 1.3", "tlsv13 alert certificate required"],
  ])("%s", (_, text) => {
    expect(asFailure(new HostError("ERR_CONNECTION_LOST", text)).code).toBe(TLS_ALERT);
    expect(asFailure(new Error(`${lost}: ${text}`)).code).toBe(TLS_ALERT);
    expect(asFailure(new Error(text)).code).toBe("");
  });
});

describe("the table of findings", () => {
  it("matches docs/operate/doctor.md", async () => {
    await expect(doctorDocument()).toMatchFileSnapshot("../../../docs/operate/doctor.md");
  });

  it("has each code in a check", () => {
    const folders = ["host/doctor", "host/doctor/checks", "node/doctor", "cli"].map((name) =>
      join(import.meta.dirname, "../../../src", name),
    );
    const code = folders
      .flatMap((folder) => readdirSync(folder).map((name) => join(folder, name)))
      .filter((file) => file.endsWith(".ts") && !file.endsWith("findings.ts"))
      .map((file) => readFileSync(file, "utf8"))
      .join("\n");
    for (const name of Object.keys(FINDINGS)) expect(code, name).toContain(`"${name}"`);
  });

  it("has a set-up for each code that provokes it with real programs", () => {
    const provoked = SET_UPS.flatMap(({ fault, warnings = [], notes = [] }) => [
      fault,
      ...warnings,
      ...notes,
    ]);
    expect(Object.keys(FINDINGS).filter((code) => !provoked.includes(code))).toEqual([]);
    expect(provoked.filter((code) => code !== undefined && !(code in FINDINGS))).toEqual([]);
  });

  it("fills in the values of the fix", () => {
    expect(finding("key-exposed", ["a", undefined], { file: "psk" })).toMatchObject({
      severity: "warning",
      evidence: ["a"],
      mend: "chmod 600 psk",
    });
  });

  it("has options that neither program has", () => {
    for (const name of Object.keys(DOCTOR_FIELDS)) expect(TUN2SOCKS_FIELDS).not.toHaveProperty(name);
  });
});

describe("the examination", () => {
  const fine = (name: string, needs: string[] = []): Check<object> => ({
    name,
    needs,
    run: async () => ({ measured: name }),
  });
  async function walked(checks: readonly Check<object>[]): Promise<[boolean, string[]]> {
    const steps: Step[] = [];
    const isFine = await walk(
      checks,
      {},
      () => 0,
      (step) => steps.push(step),
    );
    return [isFine, steps.map(({ name }) => name)];
  }

  it("continues after a warning, and ends at a fault", async () => {
    const warns = { ...fine("b"), run: async () => ({ measured: "", findings: [finding("way-dead", [])] }) };
    const fails = { ...fine("c"), run: async () => ({ measured: "", findings: [finding("no-answer", [])] }) };
    expect(await walked([fine("a"), warns, fine("d"), fails, fine("e")])).toEqual([
      false,
      ["a", "b", "d", "c"],
    ]);
  });

  it("leaves out checks that need a skipped one", async () => {
    const skips = { ...fine("a"), run: async () => skipped("nothing to do") };
    expect(await walked([skips, fine("b", ["a"]), fine("c")])).toEqual([true, ["a", "c"]]);
  });
});

describe("redaction", () => {
  it("names each address by its place in the options, and keeps loopback", () => {
    const report = redaction({
      server: "tunnel.example:3456",
      via: ["socks5://127.0.0.1:1080", "ss://aes-256-gcm:hidden-word@192.0.2.7:8388"],
      forwards: [{ listen: "127.0.0.1:0", target: "9.9.9.9:53" }],
    });
    expect(report.clean("127.0.0.1:1080, 192.0.2.7:8388, tunnel.example:3456, 9.9.9.9:53 hidden-word")).toBe(
      "127.0.0.1:1080, HOP2:8388, SERVER:3456, TARGET1:53 ***",
    );
    expect(report.clean("other-tunnel.example and tunnel.example.net stay, tunnel.example. does not")).toBe(
      "other-tunnel.example and tunnel.example.net stay, SERVER. does not",
    );
  });

  it("numbers addresses that are not in the options, the same one each time", () => {
    const report = redaction({ server: "a.example:1" });
    expect(report.clean("198.51.100.4, [2001:db8::1]:443, fe80::1%eth0, 198.51.100.4:5")).toBe(
      "IP3, [IP1]:443, IP2, IP3:5",
    );
    expect(report.cleanValue({ of: ["2001:db8::1"], count: 3 })).toEqual({ of: ["IP1"], count: 3 });
  });

  it("keeps text that only looks like an address", () => {
    const report = redaction({ server: "a.example:1" });
    for (const text of ["14:44:31 GMT", "0.1.0, Node 20.20.2", "[::1]:53", "0.0.0.0:1234", "1.2.3.400"]) {
      expect(report.clean(text)).toBe(text);
    }
    expect(redactText("got 192.0.2.1:1, ::1")).toBe("got IP:1, ::1");
  });

  it("shows addresses, but no secrets, on request", () => {
    const report = redaction(
      { server: "192.0.2.1:1", via: ["http://user:pass%20word@192.0.2.2:80?header=X-Token:%20abcdef"] },
      { showAddresses: true },
    );
    expect(report.clean("192.0.2.1 pass word abcdef")).toBe("192.0.2.1 *** ***");
  });
});
