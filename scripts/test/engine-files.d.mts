export const LEFT_OUT: readonly string[];
export const LONG: readonly string[];

export function testFiles(): string[];
