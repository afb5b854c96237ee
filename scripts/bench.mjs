// `npm run bench`: builds what is missing, then runs bench/run.mjs in this process, so that it gets the signals.
import "./build-bench.mjs";

await import("../bench/run.mjs");
