import { spawn, spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { flagsOf } from "../../../src/cli/manual/flags.ts";
import { PROGRAMS } from "../../../src/cli/manual/programs.ts";

const OUTPUT = "build/packages";
const NAMES = PROGRAMS.map(({ name }) => name);
const folder = mkdtempSync(join(tmpdir(), "underpass-packages-"));

interface Manifest {
  readonly version: string;
  readonly bin: Readonly<Record<string, string>>;
  readonly dependencies: Readonly<Record<string, string>>;
}

interface Lock {
  readonly packages: Readonly<Record<string, { readonly dev?: boolean }>>;
}

function readJson<Content>(path: string): Content {
  return JSON.parse(readFileSync(path, "utf8")) as Content;
}

function run(command: string, args: readonly string[], cwd?: string): string {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: "utf8", cwd });
  if (status !== 0) throw new Error(`${command} ${args.join(" ")}: ${error?.message ?? stdout + stderr}`);
  return stdout;
}

/** True if the program exists, or if the test must fail without it. */
function mayUse(program: string): boolean {
  return spawnSync("sh", ["-c", 'command -v "$1"', "sh", program]).status === 0 || Boolean(process.env.CI);
}

function fileOf(extension: string): string {
  const name = readdirSync(OUTPUT).find((each) => each.endsWith(extension));
  if (name === undefined) throw new Error(`no ${extension} was built`);
  return resolve(OUTPUT, name);
}

const hasDebianTools = mayUse("dpkg-deb");
/** Where the Debian package is unpacked. */
const root = join(folder, "root");

/** Starts a udp-server with the package's native module and stops it. @returns its ready line */
async function startServer(script: string): Promise<string> {
  const args = [script, "--listen", "127.0.0.1:0", "--io", "native", "--log-format", "json"];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "ignore", "pipe"] });
  let output = "";
  child.stderr.on("data", (data: Buffer) => {
    output += String(data);
    if (output.includes('"ready"')) child.kill("SIGTERM");
  });
  const status = await new Promise((done) => child.once("exit", done));
  expect(status, output).toBe(0);
  return output;
}

describe("npm run package", () => {
  beforeAll(() => {
    run(process.execPath, ["scripts/package.mjs"]);
    if (hasDebianTools) run("dpkg-deb", ["--raw-extract", fileOf(".deb"), root]);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  describe.skipIf(!hasDebianTools)("the Debian package", () => {
    const file = (path: string) => readFileSync(join(root, path));

    it("contains the programs, whose native module works", async () => {
      const { version } = readJson<Manifest>("package.json");
      for (const name of NAMES) {
        expect(file(`usr/bin/${name}`).toString()).toMatch(/^#!\/usr\/bin\/node\n/);
        expect(run(process.execPath, [join(root, "usr/bin", name), "--version"])).toBe(`${version}\n`);
      }
      expect(await startServer(join(root, "usr/bin/udp-server"))).toContain('"ready":"udp-server"');
    });

    it("declares checksums, configuration files and dependencies", () => {
      run("md5sum", ["--check", "--quiet", "DEBIAN/md5sums"], root);
      const control = file("DEBIAN/control").toString();
      expect(control).toMatch(/^Depends: libc6 \(>= 2\.\d+\), nodejs \(>= 20\.19\), /m);
      for (const path of file("DEBIAN/conffiles").toString().trim().split("\n")) file(path);
      for (const script of ["postinst", "prerm", "postrm"]) run("sh", ["-n", join(root, "DEBIAN", script)]);
    });

    it("contains the licences of everything that is bundled", () => {
      const copyright = file("usr/share/doc/underpass/copyright").toString();
      const bundled = readJson<string[]>("dist/cli/bundled-packages.json");
      expect(bundled).toContain("zod");
      for (const name of [...bundled, "node-gyp-build"])
        expect(copyright).toContain(`Comment: ${name}, bundled\n`);
    });

    it.each(PROGRAMS)("has a manual page of $name with all of its options", ({ name, fields }) => {
      const path = join(folder, `${name}.1`);
      writeFileSync(path, run("gzip", ["-dc", join(root, `usr/share/man/man1/${name}.1.gz`)]));
      const page = readFileSync(path, "utf8");
      for (const flag of flagsOf(fields)) expect(page).toContain(`\\-\\-${flag.name.replace(/-/g, "\\-")}`);
      if (mayUse("mandoc")) expect(run("mandoc", ["-Tlint", "-Wwarning", path])).toBe("");
    });

    it.each(NAMES)("completes options of %s and their values in bash", (name) => {
      const completions = join(root, "usr/share/bash-completion/completions", name);
      const complete = (...words: string[]) =>
        run("bash", [
          "-c",
          `. "$1"; handler=_\${2//-/_}; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); $handler; echo "\${COMPREPLY[*]}"`,
          ...["bash", completions, name, ...words],
        ]).trim();
      expect(complete("--psk")).toBe("--psk-file");
      expect(complete("--io", "na")).toBe("native");
      expect(complete("--queue-bytes", "")).toBe("");
    });

    it("has units that systemd accepts", () => {
      if (!mayUse("systemd-analyze")) return;
      const units = join(root, "usr/lib/systemd/system");
      for (const unit of readdirSync(units)) {
        const { stdout, stderr } = spawnSync("systemd-analyze", ["verify", "--man=no", join(units, unit)], {
          encoding: "utf8",
        });
        expect(`${stdout}${stderr}`.split("\n").filter((line) => line.includes("udp-"))).toEqual([]);
      }
    });

    it("has units whose options the programs accept", () => {
      const key = join(folder, "psk");
      writeFileSync(key, "0123456789abcdef0123456789abcdef\n", { mode: 0o600 });
      for (const name of ["udp-local", "udp-server"]) {
        const unit = file(`usr/lib/systemd/system/${name}.service`).toString();
        const [, words] = /^ExecStart=\/usr\/bin\/env \S+ (.*)$/m.exec(unit)!;
        const args = words
          .replaceAll("/etc/underpass", join(root, "etc/underpass"))
          .replaceAll("%d/psk", key)
          .split(" ");
        // The wrong --queue-bytes ends the program after it has checked the unit's options, which precede it in the table.
        // LISTEN_FDS stands in for the sockets of udp-server.socket; nothing opens them.
        const passed = "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=tunnels:tunnels";
        const program = [process.execPath, join(root, "usr/bin", name), ...args, "--queue-bytes", "1"];
        const { status, stderr } = spawnSync("sh", ["-c", `${passed} exec "$@"`, "sh", ...program], {
          encoding: "utf8",
        });
        expect(stderr).toContain("--queue-bytes: expected");
        expect(status).toBe(2);
      }
    });
  });

  it("makes an npm tarball that installs without a network or compiler and runs with native I/O", async () => {
    const project = join(folder, "project");
    mkdirSync(project);
    const tarball = `file:${fileOf(".tgz")}`;
    const { version, bin, dependencies } = readJson<Manifest>("package.json");
    const { packages, ...lock } = readJson<Lock>("package-lock.json");
    const needed = Object.entries(packages).filter(([path, { dev }]) => path !== "" && !dev);
    const manifest = { private: true, dependencies: { underpass: tarball } };
    writeFileSync(join(project, "package.json"), JSON.stringify(manifest));
    // npm finds the packages of this repository in its cache by checksum.
    const own = { "": manifest, "node_modules/underpass": { version, resolved: tarball, bin, dependencies } };
    writeFileSync(
      join(project, "package-lock.json"),
      JSON.stringify({ ...lock, packages: { ...own, ...Object.fromEntries(needed) } }),
    );
    run("npm", ["ci", "--offline", "--no-audit", "--no-fund"], project);
    const installed = join(project, "node_modules/underpass");
    expect(existsSync(join(installed, "native/prebuilds"))).toBe(true);
    expect(existsSync(join(installed, "native/build"))).toBe(false);
    for (const name of NAMES) run(join(project, "node_modules/.bin", name), ["--version"]);
    expect(await startServer(join(installed, "dist/cli/udp-server.js"))).toContain('"ready":"udp-server"');

    // A program may list no types in its tsconfig, as TypeScript does by default.
    const [, example] = /```ts\n(.*?)```/s.exec(readFileSync("docs/embed/library.md", "utf8"))!;
    writeFileSync(join(project, "example.mts"), `declare const psk: Uint8Array;\n${example}`);
    symlinkSync(resolve("node_modules/@types"), join(project, "node_modules/@types"));
    const options = ["--noEmit", "--strict", "--module", "nodenext", "--target", "es2022", "--types", ""];
    run(resolve("node_modules/.bin/tsc"), [...options, "example.mts"], project);
  });
});
