/** Passes checked options as text from the engine that checks them to the one that runs: JSON, with bytes as lists of numbers. */
export function encodeChecked(options: object): string {
  return JSON.stringify(options, (_, value: unknown) => {
    if (value instanceof Uint8Array) return { bytes8: [...value] };
    return value instanceof Uint16Array ? { bytes16: [...value] } : value;
  });
}

// biome-ignore lint/suspicious/noExplicitAny: the code that encoded the options knows their type.
export function decodeChecked(text: string): any {
  return JSON.parse(text, (_, value) => {
    if (Array.isArray(value?.bytes8)) return Uint8Array.from(value.bytes8);
    return Array.isArray(value?.bytes16) ? Uint16Array.from(value.bytes16) : value;
  });
}
