/** A small part of the DOM: the page draws only text and attributes, never markup. */
export type Node = readonly [
  tag: string,
  attributes: Readonly<Record<string, string>>,
  content: string | readonly Node[],
];

export function element<Kind extends HTMLElement = HTMLElement>(id: string): Kind {
  return document.getElementById(id) as Kind;
}

/** Replaces the contents of an element. */
export function fill(id: string, nodes: readonly Node[]): void {
  element(id).replaceChildren(...nodes.map(make));
}

export function make([tag, attributes, content]: Node): HTMLElement {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== "") made.setAttribute(name, value);
  if (typeof content === "string") made.textContent = content;
  else made.append(...content.map(make));
  return made;
}
