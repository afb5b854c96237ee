export function bundleForEngine(files: readonly string[], outfile?: string): Promise<string[]>;
