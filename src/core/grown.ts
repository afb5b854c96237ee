/** Copies a table into a larger one that replaces it. @returns `to` */
export function grown<Table extends Int32Array | Uint8Array | Float64Array>(from: Table, to: Table): Table {
  to.set(from);
  return to;
}
