import type { OptionFields } from "../host/options/fields/fields.ts";

/** What a program's command line accepts, apart from the options that all programs have. */
export interface ProgramLine {
  readonly name: string;
  readonly description: string;
  readonly examples: readonly string[];
  readonly fields: OptionFields;
  /** Words that may come instead of options. */
  readonly commands?: readonly ProgramCommand[];
}

/** Another function of a program, such as `udp-local status`. */
export interface ProgramCommand {
  readonly name: string;
  readonly help: string;
  /** Its own options. */
  readonly fields: OptionFields;
  /** Whether it accepts the program's options too. */
  readonly takesAll: boolean;
}
