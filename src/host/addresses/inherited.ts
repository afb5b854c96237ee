/** Lower descriptors are the standard streams. */
const FIRST_DESCRIPTOR = 3;

/** Reads `fd:N`, a listening socket that the process got when it started. @returns undefined for other text */
export function parseInherited(text: string): number | undefined {
  const descriptor = Number(/^fd:(\d{1,5})$/.exec(text)?.[1]);
  return descriptor >= FIRST_DESCRIPTOR ? descriptor : undefined;
}
