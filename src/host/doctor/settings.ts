import * as z from "zod";
import { isHostAndPort } from "../addresses/endpoint.ts";
import type { OptionField } from "../options/fields/fields.ts";
import { integer } from "../options/fields/fields.ts";

/** The options of doctor in addition to those of its program. */
export interface DoctorSettings {
  readonly json?: boolean | undefined;
  readonly showAddresses?: boolean | undefined;
  /** Time limit for each step of connecting, in milliseconds. */
  readonly testTimeoutMs: number;
  /** Duration of the delay measurement; 0 skips it. */
  readonly testSeconds: number;
  readonly testDns?: string | undefined;
  readonly testName: string;
  readonly testEcho?: string | undefined;
  readonly testStun?: string | undefined;
  readonly testClock?: string | undefined;
}

const target = z.string().refine(isHostAndPort).optional();

export const DOCTOR_FIELDS = {
  json: { schema: z.boolean().optional(), expects: "true or false", flag: "json", help: "print JSON" },
  showAddresses: {
    schema: z.boolean().optional(),
    expects: "true or false",
    flag: "show-addresses",
    help: "show the addresses and names of hosts",
  },
  testTimeoutMs: integer(
    "test-timeout-ms",
    "MS",
    "time limit for each step of connecting",
    100,
    60_000,
    5_000,
  ),
  testSeconds: integer("test-seconds", "S", "how long to measure delay; 0 skips the measurement", 0, 600, 10),
  testDns: {
    schema: target,
    expects: "HOST:PORT",
    flag: "test-dns",
    value: "HOST:PORT",
    help: "name server to query through the tunnel (default: a --forward target with port 53)",
  },
  testName: {
    schema: z
      .string()
      .regex(/^(?:[\w-]{1,63}\.)*[\w-]{1,63}\.?$/)
      .max(250)
      .default("example.com"),
    expects: "a name",
    flag: "test-name",
    value: "NAME",
    help: "name to query (default example.com)",
  },
  testEcho: {
    schema: target,
    expects: "HOST:PORT",
    flag: "test-echo",
    value: "HOST:PORT",
    help: "UDP echo service (RFC 862): sizes, loss and round trips through the tunnel",
  },
  testStun: {
    schema: target,
    expects: "HOST:PORT",
    flag: "test-stun",
    value: "HOST:PORT",
    help: "STUN server (RFC 5780): the NAT in front of udp-server, as targets see it",
  },
  testClock: {
    schema: z.url({ protocol: /^http$/ }).optional(),
    expects: "http://HOST[:PORT]/",
    flag: "test-clock",
    value: "URL",
    help: "web server to compare this machine's clock with",
  },
} satisfies Record<keyof DoctorSettings, OptionField>;
