// Gets the sources of capi/ and native/ for each submodule of third_party/ that is not checked out: the same release, from Debian's
// source packages, through apt as configured here but from another suite, into build/third-party/NAME. The upstream archive must
// have the checksum below; Debian's patches are not applied, and its files are not used. `third-party.mjs NAME...` gets only the
// named ones.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const UNPACKED = join(ROOT, "build/third-party");

const RELEASES = [
  {
    name: "quickjs",
    source: "quickjs",
    archive: "quickjs_2025.04.26.orig.tar.xz",
    sha256: "ec81da5b3249ed648dbc7df4a1654988910e66a118d9b71cb63534216efcfbbe",
    file: "quickjs.c",
  },
  {
    name: "libuv",
    source: "libuv1",
    archive: "libuv1_1.50.0.orig.tar.gz",
    sha256: "ec9de6ecf2a780fd2afb3b007947d2cd57c3bb17f3b9e721a66774980d35cd4d",
    file: "src/unix/core.c",
  },
  {
    name: "mbedtls",
    source: "mbedtls",
    archive: "mbedtls_3.6.6.orig.tar.bz2",
    sha256: "8fb65fae8dcae5840f793c0a334860a411f884cc537ea290ce1c52bb64ca007a",
    file: "library/ssl_tls.c",
  },
  {
    // Debian repacked it without the C# programs beside it.
    name: "lwip",
    source: "lwip",
    archive: "lwip_2.2.1+dfsg1.orig.tar.xz",
    sha256: "83729c274c499d3348e9fbbe043a3113f3fa8953e7efddc7c21c7fcbb1f2b7b1",
    file: "src/core/tcp.c",
  },
];
const SUITE = "trixie";

/** Where this machine's apt gets Debian packages, as a source of the source packages of {@link SUITE}. */
function sourceOfSuite() {
  const format = "$(ORIGIN) $(COMPONENT) $(REPO_URI)";
  const targets = execFileSync("apt-get", ["indextargets", "--format", format, "Created-By: Packages"], {
    encoding: "utf8",
  });
  const uri = /^Debian main (.*)$/m.exec(targets)?.[1];
  if (uri === undefined) throw new Error("apt has no lists of Debian's packages: run apt-get update");
  return `Types: deb-src\nURIs: ${uri}\nSuites: ${SUITE}\nComponents: main\n`;
}

const wanted = process.argv.slice(2);
const missing = RELEASES.filter(
  ({ name, file }) =>
    (wanted.length === 0 || wanted.includes(name)) &&
    !existsSync(join(ROOT, "third_party", name, file)) &&
    !existsSync(join(UNPACKED, name, file)),
);
if (missing.length > 0) {
  const folder = mkdtempSync(join(tmpdir(), "underpass-third-party-"));
  try {
    for (const part of ["sources", "lists/partial", "cache/archives/partial"])
      mkdirSync(join(folder, part), { recursive: true });
    writeFileSync(join(folder, "sources/underpass.sources"), sourceOfSuite());
    const options = Object.entries({
      "Dir::Etc::SourceList": "/dev/null",
      "Dir::Etc::SourceParts": join(folder, "sources"),
      "Dir::State::Lists": join(folder, "lists"),
      "Dir::Cache": join(folder, "cache"),
      "APT::Sandbox::User": "root",
      "Acquire::Retries": "3",
    }).flatMap(([name, value]) => ["-o", `${name}=${value}`]);
    const apt = (/** @type {string[]} */ ...words) =>
      execFileSync("apt-get", ["-qq", ...options, ...words], {
        cwd: folder,
        stdio: ["ignore", "ignore", "inherit"],
      });
    apt("update");
    apt("source", "--download-only", "--tar-only", ...missing.map(({ source }) => source));
    mkdirSync(UNPACKED, { recursive: true });
    for (const { name, archive, sha256 } of missing) {
      const path = join(folder, archive);
      if (!existsSync(path)) throw new Error(`${SUITE} has no ${archive}: check the submodules out instead`);
      const sum = createHash("sha256").update(readFileSync(path)).digest("hex");
      if (sum !== sha256) throw new Error(`${archive}: SHA-256 is ${sum}, expected ${sha256}`);
      const unpacked = join(folder, name);
      mkdirSync(unpacked);
      execFileSync("tar", ["--extract", "--file", path, "--directory", unpacked, "--strip-components=1"]);
      rmSync(join(UNPACKED, name), { recursive: true, force: true });
      execFileSync("mv", [unpacked, join(UNPACKED, name)]);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
