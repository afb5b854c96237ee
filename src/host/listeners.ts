/** Listeners to the events of an object, by name. */
export class Listeners<Events extends object> {
  readonly #lists = new Map<keyof Events, ((value: never) => void)[]>();

  /** Calls `listener` for each event of that name, after those that were added before it. @returns a function that removes it */
  on<Name extends keyof Events>(name: Name, listener: (value: Events[Name]) => void): () => void {
    this.#lists.set(name, [...(this.#lists.get(name) ?? []), listener]);
    return () => {
      const others = this.#lists.get(name)!.filter((other) => other !== listener);
      this.#lists.set(name, others);
    };
  }

  emit<Name extends keyof Events>(name: Name, value: Events[Name]): void {
    // Adding or removing a listener meanwhile takes effect with the next event.
    for (const listener of this.#lists.get(name) ?? []) listener(value as never);
  }
}
