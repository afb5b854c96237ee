import { get } from "node:http";
import { performance } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import * as z from "zod";
import { HostError, UsageError } from "../../core/errors.ts";
import { parseEndpoint } from "../../host/addresses/endpoint.ts";
import { checkFields } from "../../host/options/fields/fields.ts";
import type { AdminStatus } from "../../node/admin/admin-server.ts";
import { systemReason } from "../../node/system-text.ts";
import { gatherOptions } from "../option-sources.ts";
import type { AdminCommand, AdminOptions } from "./admin-options.ts";
import { ADMIN_FIELDS } from "./admin-options.ts";
import { statusText } from "./admin-text.ts";

const ANSWER_MS = 5_000;
const MAX_ANSWER_BYTES = 16_777_216;

interface ClientOptions extends AdminOptions {
  readonly json?: boolean;
  readonly intervalS: number;
}

export const ADMIN_COMMAND_FIELDS = {
  ...ADMIN_FIELDS,
  admin: { ...ADMIN_FIELDS.admin, help: "address of the program's --admin" },
  adminToken: { ...ADMIN_FIELDS.adminToken, help: "file with the token of --admin" },
  json: { schema: z.boolean().optional(), expects: "true or false", flag: "json", help: "print JSON" },
  intervalS: {
    schema: z.int().min(1).max(3_600).default(1),
    expects: "an integer from 1 to 3600",
    flag: "interval",
    value: "S",
    help: "for top: seconds between two readings (default 1)",
    isNumber: true,
  },
};

/**
 * Shows the state of a running program once, or repeatedly until a signal.
 *
 * @throws UsageError ERR_OPTION; HostError ERR_CONNECT when the program does not answer
 */
export async function runAdminCommand(
  program: { readonly name: string; readonly version: string },
  command: AdminCommand,
  argv: readonly string[],
): Promise<void> {
  const name = `${program.name} ${command}`;
  const gathered = gatherOptions(
    {
      name,
      description:
        command === "status"
          ? "Shows the state of a running program."
          : "Shows the state of a running program every second.",
      examples: [`${name} --admin 127.0.0.1:9464`, `${name} --admin unix:/run/${program.name}-admin.sock`],
      version: program.version,
      fields: ADMIN_COMMAND_FIELDS,
    },
    argv,
  );
  if (gathered === undefined) return;
  // The reader of the output may exit early, like `head`.
  process.stdout.on("error", () => process.exit(0));
  const options = checkFields(ADMIN_COMMAND_FIELDS, gathered.values, gathered.nameField) as ClientOptions;
  if (options.admin === undefined)
    throw new UsageError("ERR_OPTION", "--admin: expected the address of the program");
  if (command === "status") {
    const status = await ask(options);
    process.stdout.write(options.json ? `${JSON.stringify(status)}\n` : statusText(status));
    return;
  }
  await watch(options);
}

async function watch(options: ClientOptions): Promise<never> {
  let before: { readonly status: AdminStatus; readonly at: number } | undefined;
  for (;;) {
    const status = await ask(options);
    const at = performance.now();
    const earlier = before && { status: before.status, seconds: (at - before.at) / 1000 };
    const text = options.json ? `${JSON.stringify(status)}\n` : statusText(status, earlier);
    // Clears a terminal; a file or a pipe gets one reading after another.
    process.stdout.write(process.stdout.isTTY && !options.json ? `\x1b[H\x1b[2J${text}` : `${text}\n`);
    before = { status, at };
    await sleep(options.intervalS * 1000);
  }
}

function ask({ admin, adminToken }: ClientOptions): Promise<AdminStatus> {
  const endpoint = parseEndpoint(admin!);
  const failed = (problem: string) => new HostError("ERR_CONNECT", `admin ${admin}: ${problem}`);
  return new Promise((done, fail) => {
    const request = get({
      ...(endpoint.path === undefined
        ? { host: endpoint.host, port: endpoint.port }
        : { socketPath: endpoint.path }),
      path: "/status",
      agent: false,
      signal: AbortSignal.timeout(ANSWER_MS),
      headers: adminToken && { authorization: `Bearer ${Buffer.from(adminToken).toString("latin1")}` },
    });
    request.on("error", (error) =>
      fail(failed(error.name === "AbortError" ? "no answer" : systemReason(error))),
    );
    request.on("response", (response) => {
      const parts: Buffer[] = [];
      let length = 0;
      response.on("error", (error) => fail(failed(error.message)));
      response.on("data", (part: Buffer) => {
        length += part.length;
        if (length > MAX_ANSWER_BYTES) request.destroy(new Error("the answer is too long"));
        parts.push(part);
      });
      response.on("end", () => {
        const text = Buffer.concat(parts).toString("utf8");
        if (response.statusCode !== 200)
          return fail(failed(`${response.statusCode} ${text.trim().slice(0, 200)}`));
        try {
          done(JSON.parse(text) as AdminStatus);
        } catch {
          fail(failed("the answer is not the state of a program"));
        }
      });
    });
  });
}
