/** Writes one line. @param fields  what the line is about; never a secret */
export type LogMethod = (fields: object, message: string) => void;

/** What the library needs of a logger; a pino logger is one. */
export interface Logger {
  readonly debug: LogMethod;
  readonly info: LogMethod;
  readonly warn: LogMethod;
  readonly error: LogMethod;
}

const ignore: LogMethod = () => {};

export const silentLogger: Logger = { debug: ignore, info: ignore, warn: ignore, error: ignore };
