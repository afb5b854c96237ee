/** An invariant that does not hold. `kind` names it; the message adds what was observed. */
export class FuzzFailure extends Error {
  readonly kind: string;

  constructor(kind: string, detail = "") {
    super(detail === "" ? kind : `${kind}: ${detail}`);
    this.kind = kind;
  }
}

/** @throws FuzzFailure unless `holds`; `detail` is only called then */
export function check(holds: boolean, kind: string, detail: () => string = () => ""): asserts holds {
  if (!holds) throw new FuzzFailure(kind, detail());
}
