/** The functions of capi/tests/run-script.c. */
declare function print(text: string): void;
declare function readText(path: string): string;
declare function exit(status: number): void;
