// `npm run bench`: builds what is missing, then runs bench/run.mjs in this process, which so gets its signals.
import "./build-bench.mjs";

await import("../bench/run.mjs");
