/** Writes one line. @param fields  its data; never a secret */
export type LogMethod = (fields: object, message: string) => void;

/** The logger that the library requires; those of pino fit. */
export interface Logger {
  readonly debug: LogMethod;
  readonly info: LogMethod;
  readonly warn: LogMethod;
  readonly error: LogMethod;
}

const ignore: LogMethod = () => {};

export const silentLogger: Logger = { debug: ignore, info: ignore, warn: ignore, error: ignore };
