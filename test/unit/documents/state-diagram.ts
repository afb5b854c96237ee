export type Transitions = Readonly<Record<string, Readonly<Partial<Record<string, string>>>>>;

/**
 * A machine as a Mermaid state diagram. Events that lead to the same state share an arrow; events that do not change the state
 * are left out.
 */
export function stateDiagram(transitions: Transitions): string {
  const lines = ["```mermaid", "stateDiagram-v2", `    [*] --> ${Object.keys(transitions)[0]}`];
  for (const [from, row] of Object.entries(transitions)) {
    const events = new Map<string, string[]>();
    for (const [event, to] of Object.entries(row)) {
      if (to === undefined || to === from) continue;
      events.set(to, [...(events.get(to) ?? []), event]);
    }
    for (const [to, names] of events) lines.push(`    ${from} --> ${to}: ${names.join(", ")}`);
  }
  return [...lines, "```"].join("\n");
}

/** Inserts diagrams between the marks that name them. */
export function withDiagrams(text: string, machines: Readonly<Record<string, Transitions>>): string {
  let whole = text;
  for (const [name, transitions] of Object.entries(machines)) {
    const marked = new RegExp(`(<!-- states: ${name} -->\n)[^]*?(\n<!-- end -->)`);
    if (!marked.test(whole)) throw new Error(`no place for the diagram of ${name}`);
    whole = whole.replace(
      marked,
      (_, begin: string, end: string) => `${begin}${stateDiagram(transitions)}${end}`,
    );
  }
  return whole;
}
