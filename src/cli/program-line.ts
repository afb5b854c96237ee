import type { OptionFields } from "../host/options/fields.ts";

/** What the command line of a program takes, beside those of all programs. */
export interface ProgramLine {
  readonly name: string;
  readonly description: string;
  readonly examples: readonly string[];
  readonly fields: OptionFields;
  /** Words that may stand in the place of options. */
  readonly commands?: readonly ProgramCommand[];
}

/** Something else that a program does, as in `udp-local status`. */
export interface ProgramCommand {
  readonly name: string;
  readonly help: string;
  /** The options of its own. */
  readonly fields: OptionFields;
  /** It takes those of the program too. */
  readonly takesAll: boolean;
}
