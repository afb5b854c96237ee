#!/usr/bin/env node
// A signal ends the program with 0 even while its modules load, so this imports nothing before its handlers stand. program.ts removes them.
for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => process.exit(0));
void import("../tun2socks.ts");
