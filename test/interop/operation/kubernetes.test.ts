import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, expect, it, onTestFinished } from "vitest";
import { parseAllDocuments } from "yaml";
import { describeWith } from "../peers/peer-program.ts";

const DEPLOY = resolve(import.meta.dirname, "../../../deploy");
const SERVER_PROGRAM = resolve(import.meta.dirname, "../../../dist/cli/udp-server.js");

interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly data?: Record<string, string>;
  readonly spec: {
    readonly replicas: number;
    readonly ordinals: { readonly start: number };
    readonly template: { readonly spec: { readonly containers: readonly { readonly args: string[] }[] } };
  };
}

interface Model {
  validate(): void;
}

function manifests(file: string): Manifest[] {
  const text = readFileSync(join(DEPLOY, "kubernetes", file), "utf8");
  return parseAllDocuments(text).map((document) => {
    expect(document.errors).toEqual([]);
    return document.toJS() as Manifest;
  });
}

/** Validates a manifest against the schema of its kind. @throws Error that names the invalid member */
async function validate(manifest: Manifest): Promise<void> {
  const { apiVersion, kind } = manifest;
  const models = (await import(`kubernetes-models/${apiVersion}/${kind}`)) as Record<
    string,
    new (
      data: Manifest,
    ) => Model
  >;
  new models[kind](manifest).validate();
}

const all = ["udp-servers.yaml", "haproxy.yaml"].flatMap(manifests);
const byKind = (kind: string) => all.find((manifest) => manifest.kind === kind)!;
/** Lines that do not depend on the servers' addresses. */
const common = (config: string) =>
  config
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => /^(balance|option|http-check|use-server|retries|retry-on|timeout|mode)\b/.test(line));

describeWith(["haproxy", "openssl"], "the manifests for Kubernetes", () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "underpass-kubernetes-"));
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  it.each(all.map((manifest) => [manifest.kind, manifest] as const))(
    "are valid: %s",
    async (_, manifest) => await validate(manifest),
  );

  it("are invalid if a member has the wrong type", async () => {
    const set = structuredClone(byKind("StatefulSet"));
    await expect(validate({ ...set, spec: { ...set.spec, replicas: "3" as never } })).rejects.toThrow(
      /replicas/,
    );
  });

  it("configure HAProxy like deploy/haproxy with the servers' numbers, and HAProxy accepts it", () => {
    const config = byKind("ConfigMap").data!["haproxy.cfg"];
    expect(common(config)).toEqual(common(readFileSync(join(DEPLOY, "haproxy/haproxy.cfg"), "utf8")));
    const { replicas, ordinals } = byKind("StatefulSet").spec;
    for (let number = ordinals.start; number < ordinals.start + replicas; number++) {
      const name = Buffer.from([number >> 16, number >> 8, number]).toString("base64");
      expect(config).toContain(`use-server s${number} if { req.fhdr(Underpass) -m reg " s=:....${name}" }`);
      expect(config).toContain(`server s${number} udp-server-${number}.udp-server:3456`);
    }
    const [key, certificate] = [join(folder, "key.pem"), join(folder, "certificate.pem")];
    const request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"];
    execFileSync("openssl", [...request, "-keyout", key, "-out", certificate], { stdio: "ignore" });
    const both = join(folder, "tunnel.pem");
    writeFileSync(both, readFileSync(certificate, "utf8") + readFileSync(key, "utf8"));
    const file = join(folder, "haproxy.cfg");
    writeFileSync(file, config.replace("/run/secrets/haproxy/tunnel.pem", both));
    execFileSync("haproxy", ["-c", "-f", file], { stdio: "pipe" });
  });

  it("start udp-server with valid options", async () => {
    for (const name of ["psk", "token"]) {
      writeFileSync(join(folder, name), "twenty-four-characters..", { mode: 0o600 });
    }
    const [{ args }] = byKind("StatefulSet").spec.template.spec.containers;
    const here = args.map((arg) =>
      arg
        .replace("/run/secrets/underpass", folder)
        .replace(/0\.0\.0\.0:\d+/, "127.0.0.1:0")
        .replace("$(SERVER_ID)", "1"),
    );
    const server = spawn(process.execPath, [SERVER_PROGRAM, ...here], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    onTestFinished(() => void server.kill("SIGKILL"));
    const exit = once(server, "exit");
    const lines: string[] = [];
    for await (const line of createInterface({ input: server.stderr })) {
      lines.push(line);
      if (line.includes('"ready":"udp-server"')) break;
    }
    expect(lines.at(-1)).toContain('"ready":"udp-server"');
    server.kill("SIGTERM");
    expect(await exit).toEqual([0, null]);
  });
});
