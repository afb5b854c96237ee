// Feeds random and mutated segments to the TCP stack of native/io, under AddressSanitizer and UBSan and with lwIP's own checks:
// `npm run fuzz:native -- [packets, 1000000] [seeds, 1]`.
import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { lwipFlags } from "../find-lwip.mjs";
import { positiveInteger, positiveIntegers } from "./numbers.mjs";

const [packets, seeds] = [
  positiveInteger(process.argv[2] ?? "1000000"),
  positiveIntegers(process.argv[3] ?? "1"),
];
if (packets === undefined || seeds === undefined) {
  console.error("fuzz-native: packets and seeds are positive integers");
  process.exit(2);
}
const lwip = lwipFlags();
if (lwip.length === 0) {
  console.error("fuzz-native: lwIP is missing");
  process.exit(1);
}
const sources = readdirSync("native/io/lwip")
  .filter((name) => name.endsWith(".c"))
  .map((name) => join("native/io/lwip", name));
const program = "build/fuzz-tcp-stack";
mkdirSync("build", { recursive: true });
const flags = [
  ...["-std=c11", "-D_GNU_SOURCE", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-DUNDERPASS_LWIP_ASSERTS"],
  ...["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"],
];
const built = spawnSync(
  "cc",
  [...flags, ...lwip, "-o", program, ...sources, "test/native/fuzz/tcp-stack.c", "-luv", "-lm", "-pthread"],
  { stdio: "inherit" },
);
if (built.status !== 0) process.exit(1);
for (const seed of seeds) {
  const { status } = spawnSync(program, [String(packets), String(seed)], { stdio: "inherit" });
  if (status !== 0) {
    console.error(`fuzz-native: failed with seed ${seed}`);
    process.exit(1);
  }
}
