import type { ChildProcess } from "node:child_process";

export function childEnd(child: ChildProcess, outputMs?: number): Promise<number>;
