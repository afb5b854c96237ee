import { copyFileSync, readFileSync } from "node:fs";
import { beforeAll, expect, it } from "vitest";
import { lastOfEach } from "./doctor/set-ups/set-up.ts";
import { SET_UPS } from "./doctor/set-ups.ts";
import type { World } from "./doctor/world.ts";
import { makeWorld, runDoctor, startSsTunnel } from "./doctor/world.ts";
import { describeWithTun } from "./network/requirements.ts";
import type { TwoHosts } from "./network/two-hosts.ts";
import { useTwoHosts } from "./network/use-two-hosts.ts";

describeWithTun("doctor", () => {
  let hosts: TwoHosts;
  useTwoHosts(
    (made) => {
      hosts = made;
    },
    { keepPrograms: true },
  );
  let world: World;
  beforeAll(async () => {
    world = await makeWorld(hosts);
    copyFileSync(world.keyFile, `${hosts.directory}/exposed-psk`);
    // Copies keep the mode.
    await hosts.client.run(["chmod", "644", `${hosts.directory}/exposed-psk`]);
  });

  it.concurrent.each(SET_UPS)("finds the fault of $name", async (setUp) => {
    const { fault, warnings = [], notes = [], data = {}, options, program = "udp-local", exitStatus } = setUp;
    const report = await runDoctor(world, program, lastOfEach(options(world)), setUp);
    const of = (severity: string) =>
      report.findings.filter((one) => one.severity === severity).map(({ code }) => code);
    const told = `${setUp.name}: ${report.text}`;
    expect(of("fault"), told).toEqual(fault === undefined ? [] : [fault]);
    expect(of("warning"), told).toEqual(warnings);
    expect(of("note"), told).toEqual(notes);
    for (const [name, measured] of Object.entries(data)) {
      expect(report.steps.find((step) => step.name === name)?.data, told).toMatchObject(measured);
    }
    expect(report.exitStatus, told).toBe(exitStatus ?? (fault === undefined ? 0 : 1));
    expect(report.isHealthy, told).toBe(fault === undefined);
    expect(
      report.findings.every(({ mend }) => !/[{}]/.test(mend)),
      told,
    ).toBe(true);
    // The report contains nothing that must not be published.
    expect(report.text).not.toMatch(/10\.7[78]\.|198\.51\.|fd77:|not a secret|wrong-one|user:password/);
    expect(report.text).not.toContain(readFileSync(world.keyFile, "utf8").trim());
  });

  it.concurrent.each([
    ["ss", [], "delayed-acks", /start ss-tunnel and ss-server with --no-delay/],
    ["ss", ["--no-delay"], undefined, /^$/],
    ["ssWaits", ["--no-delay"], "delayed-acks", /start ss-server with --no-delay/],
  ] as const)("names the hop that waits, with ss-tunnel to %s %j", async (remote, options, fault, cure) => {
    const port = await startSsTunnel(world, remote, ...options);
    const common = ["--psk-file", world.keyFile, "--test-seconds", "1", "--test-timeout-ms", "1500"];
    const report = await runDoctor(world, "udp-local", ["--server", `127.0.0.1:${port}`, ...common]);
    const found = report.findings.find(({ severity }) => severity === "fault");
    expect(found?.code, report.text).toBe(fault);
    expect(found?.mend ?? "").toMatch(cure);
  });
});
