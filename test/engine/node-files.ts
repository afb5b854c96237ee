// Stands in for node:fs and node:path in the engine, as far as the tests need them.
export function readFileSync(path: string): string {
  return readText(path);
}

export function resolve(...parts: readonly string[]): string {
  const names: string[] = [];
  for (const part of parts) {
    if (part.startsWith("/")) names.length = 0;
    for (const name of part.split("/")) {
      if (name === "..") names.pop();
      else if (name !== "" && name !== ".") names.push(name);
    }
  }
  return `/${names.join("/")}`;
}

export const join = resolve;
