/** The transitions of a machine: for each state, the possible events and the state that each leads to. */
export type Transitions<State extends string, Event extends string> = Readonly<
  Record<State, Readonly<Partial<Record<Event, State>>>>
>;

/**
 * A state machine as a table, which the code uses and from which the diagrams of PROTOCOL.md are drawn. For typed arrays, states are
 * numbers in the order of the table. The first is the initial state, and that of an unused slot.
 */
export class StateTable<State extends string, Event extends string> {
  readonly transitions: Transitions<State, Event>;
  readonly #names: readonly State[];
  readonly #next: Readonly<Partial<Record<Event, number>>>[];

  constructor(transitions: Transitions<State, Event>) {
    this.transitions = transitions;
    this.#names = Object.keys(transitions) as State[];
    this.#next = this.#names.map((name) => {
      const row = Object.entries(transitions[name]) as [Event, State][];
      return Object.fromEntries(row.map(([event, to]) => [event, this.number(to)])) as Partial<
        Record<Event, number>
      >;
    });
  }

  number(state: State): number {
    return this.#names.indexOf(state);
  }

  name(state: number): State {
    return this.#names[state];
  }

  /** True if the event is possible in a state. */
  allows(state: number, event: Event): boolean {
    return this.#next[state][event] !== undefined;
  }

  /** The state that an event leads to. @throws Error if the table has no such transition, which is a bug in the caller */
  after(state: number, event: Event): number {
    const next = this.#next[state][event];
    if (next === undefined) throw new Error(`no "${event}" in state "${this.#names[state]}"`);
    return next;
  }
}
