// Builds the Debian package with dpkg-deb alone: programs and their threads bundled, the native module prebuilt, manual pages and
// completions from the tables of options, and the files of deploy/.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";
import { bundledPackages } from "./bundled.mjs";
import { HOST_PREBUILD } from "./prebuilds.mjs";

const LIBRARY = "usr/lib/underpass";
/** Loaded at run time, so that it is not bundled. */
const LOADER = "node-gyp-build";
const DASHBOARD_LIBRARY = "uplot";
const APACHE = "On Debian systems the whole text is in /usr/share/common-licenses/Apache-2.0.";
const CONFFILES = ["etc/underpass/udp-local.json", "etc/underpass/udp-server.json"];
const MAINTAINER = process.env.DEBEMAIL
  ? `${process.env.DEBFULLNAME ?? "Underpass"} <${process.env.DEBEMAIL}>`
  : "Underpass maintainers <maintainers@underpass.invalid>";

/** @typedef {import("../../src/cli/program.ts").ProgramLine} ProgramLine */

/**
 * @param {string} folder
 * @returns {Promise<string>} the package's path
 */
export async function buildDebianPackage(folder) {
  const root = mkdtempSync(join(tmpdir(), "underpass-deb-"));
  try {
    chmodSync(root, 0o755);
    const { version, description } = JSON.parse(readFileSync("package.json", "utf8"));
    const debianVersion = `${version}-1`;
    const when = sourceDate();
    const put = (/** @type {string} */ path, /** @type {string | Uint8Array} */ content, mode = 0o644) => {
      const whole = join(root, path);
      mkdirSync(dirname(whole), { recursive: true, mode: 0o755 });
      writeFileSync(whole, content);
      chmodSync(whole, mode);
    };
    const putFile = (/** @type {string} */ path, /** @type {string} */ from, mode = 0o644) =>
      put(path, readFileSync(from), mode);
    const zipped = (/** @type {string | Uint8Array} */ content) => gzipSync(content, { level: 9 });

    putPrograms(put, putFile, root);
    await putManuals(put, zipped, version, when);
    for (const unit of readdirSync("deploy/systemd")) {
      putFile(`usr/lib/systemd/system/${unit}`, `deploy/systemd/${unit}`);
    }
    putFile("usr/lib/sysusers.d/underpass.conf", "deploy/sysusers.d/underpass.conf");
    for (const path of CONFFILES) putFile(path, `deploy/${path}`);

    const documents = "usr/share/doc/underpass";
    for (const name of ["README.md", "PROTOCOL.md"])
      put(`${documents}/${name}.gz`, zipped(readFileSync(name)));
    put(`${documents}/changelog.gz`, zipped(readFileSync("CHANGELOG.md")));
    const entry = `underpass (${debianVersion}) unstable; urgency=medium\n\n  * Upstream release ${version}.\n\n`;
    put(`${documents}/changelog.Debian.gz`, zipped(`${entry} -- ${MAINTAINER}  ${rfc5322(when)}\n`));
    put(`${documents}/copyright`, copyright());

    const files = filesBelow(root);
    const sums = files.map((path) => {
      const sum = createHash("md5")
        .update(readFileSync(join(root, path)))
        .digest("hex");
      return `${sum}  ${path}\n`;
    });
    const architecture = execFileSync("dpkg", ["--print-architecture"], { encoding: "utf8" }).trim();
    const bytes = files.reduce((sum, path) => sum + readFileSync(join(root, path)).length, 0);
    put("DEBIAN/control", control(debianVersion, architecture, Math.ceil(bytes / 1024), description));
    put("DEBIAN/md5sums", sums.join(""));
    put("DEBIAN/conffiles", CONFFILES.map((path) => `/${path}\n`).join(""));
    for (const script of ["postinst", "prerm", "postrm"]) {
      putFile(`DEBIAN/${script}`, `deploy/debian/${script}`, 0o755);
    }
    setTimes(root, when);
    const output = join(folder, `underpass_${debianVersion}_${architecture}.deb`);
    execFileSync("dpkg-deb", ["--root-owner-group", "-Zxz", "--build", root, output], {
      stdio: ["ignore", "ignore", "inherit"],
      env: { ...process.env, SOURCE_DATE_EPOCH: String(when.getTime() / 1000) },
    });
    return output;
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}

/**
 * @param {(path: string, content: string, mode?: number) => void} put
 * @param {(path: string, from: string, mode?: number) => void} putFile
 * @param {string} root
 */
function putPrograms(put, putFile, root) {
  mkdirSync(join(root, "usr/bin"), { recursive: true });
  for (const name of bundleFiles()) {
    const text = readFileSync(join("dist/cli", name), "utf8").replace(
      /\n\/\/# sourceMappingURL=.*\n?$/,
      "\n",
    );
    const isProgram = text.startsWith("#!");
    const path = `${LIBRARY}/dist/cli/${name}`;
    put(path, text.replace(/^#!.*/, "#!/usr/bin/node"), isProgram ? 0o755 : 0o644);
    if (isProgram)
      symlinkSync(`../lib/underpass/dist/cli/${name}`, join(root, "usr/bin", name.replace(".js", "")));
  }
  putFile(`${LIBRARY}/dist/dashboard.html`, "dist/dashboard.html");
  const { name, version, type, license } = JSON.parse(readFileSync("package.json", "utf8"));
  put(`${LIBRARY}/package.json`, `${JSON.stringify({ name, version, type, license })}\n`);
  putFile(`${LIBRARY}/native/prebuilds/${HOST_PREBUILD}`, `native/prebuilds/${HOST_PREBUILD}`);
  for (const file of ["index.js", "node-gyp-build.js", "package.json"]) {
    putFile(`${LIBRARY}/node_modules/${LOADER}/${file}`, `node_modules/${LOADER}/${file}`);
  }
}

/** The programs, their threads and what these share: all that esbuild wrote, which imports no other file of dist/. */
function bundleFiles() {
  const seen = new Set(["udp-local.js", "udp-server.js", "tun2socks.js", "worker-thread.js"]);
  for (const name of seen) {
    const text = readFileSync(join("dist/cli", name), "utf8");
    for (const [, other] of text.matchAll(/(?:from|import) *\(?"\.\/([^"]+\.js)"/g)) seen.add(other);
  }
  return [...seen].filter((name) => existsSync(join("dist/cli", name)));
}

/**
 * @param {(path: string, content: string | Uint8Array) => void} put
 * @param {(content: string) => Uint8Array} zipped
 * @param {string} version
 * @param {Date} when
 */
async function putManuals(put, zipped, version, when) {
  const load = (/** @type {string} */ name) =>
    import(pathToFileURL(resolve(`dist/cli/manual/${name}.js`)).href);
  const [{ PROGRAMS }, { manPage }, completions] = await Promise.all(
    ["programs", "man-page", "completions"].map(load),
  );
  const names = PROGRAMS.map((/** @type {ProgramLine} */ { name }) => name);
  for (const program of PROGRAMS) {
    const { name } = program;
    const others = names.filter((/** @type {string} */ other) => other !== name);
    const date = when.toISOString().slice(0, 10);
    put(`usr/share/man/man1/${name}.1.gz`, zipped(manPage(program, { version, date }, others)));
    put(`usr/share/bash-completion/completions/${name}`, completions.bashCompletion(program));
    put(`usr/share/zsh/vendor-completions/_${name}`, completions.zshCompletion(program));
    put(`usr/share/fish/vendor_completions.d/${name}.fish`, completions.fishCompletion(program));
  }
}

/** Of the commit, so that the same source makes the same package. */
function sourceDate() {
  const given = process.env.SOURCE_DATE_EPOCH;
  if (given !== undefined) return new Date(Number(given) * 1000);
  try {
    const seconds = execFileSync("git", ["log", "-1", "--format=%ct"], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    });
    return new Date(Number(seconds) * 1000);
  } catch {
    return new Date(Math.floor(Date.now() / 1000) * 1000);
  }
}

/** @param {Date} when */
function rfc5322(when) {
  return when.toUTCString().replace("GMT", "+0000");
}

/** @param {string} root @param {string} at @returns {string[]} */
function filesBelow(root, at = "") {
  return readdirSync(join(root, at), { withFileTypes: true })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry) => {
      const path = join(at, entry.name);
      if (entry.isDirectory()) return filesBelow(root, path);
      return entry.isFile() ? [path] : [];
    });
}

/** @param {string} folder @param {Date} when */
function setTimes(folder, when) {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) setTimes(path, when);
    else if (entry.isFile()) utimesSync(path, when, when);
  }
  utimesSync(folder, when, when);
}

/** The glibc that the module needs. */
function glibcVersion() {
  const symbols = execFileSync("objdump", ["-T", `native/prebuilds/${HOST_PREBUILD}`], { encoding: "utf8" });
  const versions = [...symbols.matchAll(/GLIBC_2\.(\d+)/g)].map(([, minor]) => Number(minor));
  return `2.${Math.max(17, ...versions)}`;
}

/** @param {string} version @param {string} architecture @param {number} kibibytes @param {string} summary */
function control(version, architecture, kibibytes, summary) {
  const { engines } = JSON.parse(readFileSync("package.json", "utf8"));
  return `Package: underpass
Version: ${version}
Section: net
Priority: optional
Architecture: ${architecture}
Maintainer: ${MAINTAINER}
Installed-Size: ${kibibytes}
Depends: libc6 (>= ${glibcVersion()}), nodejs (${engines.node.replace(">=", ">= ")}), systemd | systemd-standalone-sysusers | systemd-sysusers
Recommends: ca-certificates
Suggests: shadowsocks-libev
Description: ${summary.replace(/\.$/, "").replace(/:.*/, "")}
 udp-local takes UDP from applications by SOCKS5 or fixed forwards and sends
 it over one or more TCP connections, through any carrier, to udp-server,
 which forwards it. tun2socks does the same for whole IP packets of a TUN
 device. Either end may be restarted: the session resumes with the same
 source ports.
 .
 The wire format is that of RFC 9298 and RFC 9297, with a pre-shared key.
`;
}

/** In the machine-readable form of Debian's policy. */
function copyright() {
  const body = (/** @type {string} */ text) =>
    text
      .trim()
      .split("\n")
      .map((line) => (line.trim() === "" ? " ." : ` ${line.trimEnd()}`))
      .join("\n");
  const holders = (/** @type {string} */ text) => {
    const lines = text.split("\n").filter((line) => /^\W*copyright\b.*(\(c\)|©|\d{4})/i.test(line));
    return lines.length === 0
      ? "its authors"
      : lines.map((line) => line.trim().replace(/^\W*copyright *(\(c\)|©)? */i, "")).join("\n           ");
  };
  const parts = bundledPackages([LOADER, DASHBOARD_LIBRARY]).map(({ name, license, text }) => {
    return `Files: ${LIBRARY}/*\nComment: ${name}, bundled\nCopyright: ${holders(text)}\nLicense: ${license}-of-${name.replace(/[@/]/g, "-").replace(/^-/, "")}\n${body(license === "Apache-2.0" ? APACHE : text)}\n`;
  });
  const lwip = readFileSync("native/lwip/LICENSE.lwip", "utf8");
  parts.push(
    `Files: ${LIBRARY}/*\nComment: lwIP, in the native module\nCopyright: ${holders(lwip)}\nLicense: BSD-3-clause-of-lwip\n${body(lwip)}\n`,
  );
  return `Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: underpass

Files: *
Copyright: the authors of Underpass
License: Apache-2.0
 ${APACHE}

${parts.join("\n")}`;
}
