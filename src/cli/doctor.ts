import { UsageError } from "../core/errors.ts";
import type { Step } from "../host/doctor/checks/check.ts";
import { hasFault } from "../host/doctor/checks/check.ts";
import { finding } from "../host/doctor/findings.ts";
import type { Redaction } from "../host/doctor/redaction.ts";
import { redactText } from "../host/doctor/redaction.ts";
import type { DoctorSettings } from "../host/doctor/settings.ts";
import { DOCTOR_FIELDS } from "../host/doctor/settings.ts";
import type { NameField, OptionFields } from "../host/options/fields/fields.ts";
import { checkFields } from "../host/options/fields/fields.ts";
import { gatherOptions } from "./option-sources.ts";
import { HOST_FIELDS } from "./program-fields.ts";
import type { ProgramLine } from "./program-line.ts";
import { isExposed } from "./secret-file.ts";

const EXIT_FAULT = 1;
const EXIT_USAGE = 2;
const MARKS = { fault: "FAULT", warning: "warn", note: "note", skipped: "-", ok: "ok" } as const;

/** What doctor needs from a program. */
export interface Patient<Options extends object> extends ProgramLine {
  readonly version: string;
  /** @throws UsageError that names the field with `nameField` */
  readonly check: (options: Options, nameField: NameField) => unknown;
  /**
   * Checks the way to the server, see host/doctor/diagnose.
   *
   * @param onBegin  called once, before the first step
   */
  readonly diagnose: (
    options: Options,
    settings: DoctorSettings,
    onBegin: (way: string, redaction: Redaction) => void,
    onStep: (step: Step) => void,
  ) => Promise<void>;
}

export function doctorFields({ fields }: ProgramLine): OptionFields {
  return { ...DOCTOR_FIELDS, ...fields, ...HOST_FIELDS };
}

/** Examines a set-up and prints what it finds. @returns the exit status: 0 healthy, 1 fault, 2 bad options */
export async function runDoctor<Options extends object>(
  patient: Patient<Options>,
  argv: readonly string[],
): Promise<number> {
  const name = `${patient.name} doctor`;
  const report = new Report(name, patient.version, argv.includes("--json"));
  process.stdout.on("error", () => process.exit(EXIT_FAULT));
  try {
    const gathered = gatherOptions(
      {
        name,
        description:
          "Checks the way to the server step by step, stops at the first fault, and reports the evidence for it and the fix " +
          "(docs/operate/doctor.md). Exits with 0 without a fault, 1 with one, 2 for bad options.",
        examples: [
          `${name} --config ${patient.name}.json`,
          `${name} --server 192.0.2.1:3456 --psk-file psk --test-dns 9.9.9.9:53 --json`,
        ],
        version: patient.version,
        fields: doctorFields(patient),
      },
      argv,
    );
    if (gathered === undefined) return 0;
    const { values, nameField, secretFiles } = gathered;
    const pick = (isWanted: (option: string) => boolean) =>
      Object.fromEntries(Object.entries(values).filter(([option]) => isWanted(option)));
    const settings = checkFields(
      DOCTOR_FIELDS,
      pick((option) => option in DOCTOR_FIELDS),
      nameField,
    ) as DoctorSettings;
    checkFields(
      HOST_FIELDS,
      pick((option) => option in HOST_FIELDS),
      nameField,
    );
    const options = pick((option) => !(option in DOCTOR_FIELDS) && !(option in HOST_FIELDS)) as Options;
    patient.check(options, nameField);
    const exposed = [...secretFiles.values()].filter(isExposed);
    const steps = (way: string, redaction: Redaction) => {
      report.begin(way, redaction);
      report.add({
        name: "config",
        ms: 0,
        measured:
          secretFiles.size === 0 ? "options are well-formed, no key" : "options and key file are well-formed",
        findings: exposed.map((file) => finding("key-exposed", [`others may read ${file}`], { file })),
      });
    };
    await patient.diagnose(options, settings, steps, (step) => report.add(step));
    return report.end();
  } catch (error) {
    // A failure before the first step is a bad option, such as a file that cannot be read.
    if (report.hasBegun && !(error instanceof UsageError)) throw error;
    const text = (error as Error).message.replace(/\s*\n\s*/g, " ");
    report.add({ name: "config", ms: 0, measured: text, findings: [finding("config-bad", [text])] });
    report.end();
    return EXIT_USAGE;
  }
}

/** Prints each step as it ends, or all at the end as JSON. */
class Report {
  readonly #name: string;
  readonly #version: string;
  readonly #isJson: boolean;
  readonly #steps: Step[] = [];
  #way: string | undefined;
  #redaction: Redaction | undefined;

  constructor(name: string, version: string, isJson: boolean) {
    this.#name = name;
    this.#version = version;
    this.#isJson = isJson;
  }

  get hasBegun(): boolean {
    return this.#way !== undefined;
  }

  begin(way: string, redaction: Redaction): void {
    this.#way = way;
    this.#redaction = redaction;
    this.#print([
      `${this.#name} ${this.#version}, Node ${process.versions.node}, ${process.platform}: ${way}`,
    ]);
  }

  add(step: Step): void {
    this.#steps.push(step);
    this.#print([`${MARKS[markOf(step)].padEnd(5)} ${step.name.padEnd(12)} ${step.measured}`]);
    for (const { code, severity, meaning, evidence, mend } of step.findings ?? []) {
      this.#print([
        `      ${severity === "fault" ? "" : `${severity}: `}${code}: ${meaning}`,
        ...evidence.map((line) => `      why:   ${line}`),
        `      fix:   ${mend}`,
      ]);
    }
  }

  /** @returns the exit status */
  end(): number {
    const isHealthy = !this.#steps.some(hasFault);
    if (this.#isJson) {
      const report = {
        program: this.#name,
        version: this.#version,
        way: this.#way,
        isHealthy,
        findings: this.#steps.flatMap(({ findings = [] }) => findings),
        steps: this.#steps,
      };
      const clean = this.#redaction?.cleanValue(report) ?? report;
      process.stdout.write(`${JSON.stringify(clean)}\n`);
    } else this.#print([isHealthy ? "healthy" : "stopped at this fault"]);
    return isHealthy ? 0 : EXIT_FAULT;
  }

  #print(lines: readonly string[]): void {
    if (this.#isJson) return;
    const clean = (line: string) => this.#redaction?.clean(line) ?? redactText(line);
    // A server's bytes must not control the terminal.
    process.stdout.write(lines.map((line) => `${clean(line).replace(/[^\x20-\x7e]/g, "?")}\n`).join(""));
  }
}

function markOf(step: Step): keyof typeof MARKS {
  const severities = (step.findings ?? []).map(({ severity }) => severity);
  for (const severity of ["fault", "warning", "note"] as const)
    if (severities.includes(severity)) return severity;
  return step.isSkipped === true ? "skipped" : "ok";
}
