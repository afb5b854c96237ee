export function positiveInteger(text: string): number | undefined;
export function positiveIntegers(text: string): number[] | undefined;
