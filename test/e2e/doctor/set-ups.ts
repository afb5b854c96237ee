import { HEALTHY } from "./set-ups/healthy.ts";
import { HOPS } from "./set-ups/hops.ts";
import { MACHINE } from "./set-ups/machine.ts";
import { SESSION } from "./set-ups/session.ts";
import type { SetUp } from "./set-ups/set-up.ts";
import { UPGRADE } from "./set-ups/upgrade.ts";

/** Every finding has at least one. */
export const SET_UPS: readonly SetUp[] = [...HEALTHY, ...MACHINE, ...HOPS, ...UPGRADE, ...SESSION];
