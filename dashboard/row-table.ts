import type { Node } from "./page.ts";
import { element, fill, make } from "./page.ts";

export type Cell = string | number;

const ROW_PX = 28;
const MARGIN_ROWS = 10;

/** A table that sorts and filters. Only rows in sight are in the page, so that ten thousand are as fast as ten. */
export class RowTable {
  readonly #id: string;
  readonly #what: string;
  readonly #columns: readonly string[];
  #rows: readonly (readonly Cell[])[] = [];
  /** The text of each row in lower case, for the filter; made for the first filter. */
  #texts: readonly string[] | undefined;
  #visible: readonly (readonly Cell[])[] = [];
  #sortBy = 0;
  #isDescending = false;

  /**
   * @param id    prefix of the ids of its elements
   * @param what  name of its rows, in the plural
   */
  constructor(id: string, what: string, columns: readonly string[]) {
    this.#id = id;
    this.#what = what;
    this.#columns = columns;
    this.#drawHead();
    this.#element("filter").addEventListener("input", () => this.#arrange());
    this.#element("rows").addEventListener("scroll", () => this.#draw());
  }

  /** @param rows  cells by column; -1 for an unknown value */
  show(rows: readonly (readonly Cell[])[]): void {
    this.#rows = rows;
    this.#texts = undefined;
    this.#arrange();
  }

  #element<Kind extends HTMLElement = HTMLElement>(name: string): Kind {
    return element<Kind>(`${this.#id}-${name}`);
  }

  #arrange(): void {
    const wanted = this.#element<HTMLInputElement>("filter").value.toLowerCase();
    const rows = this.#rows;
    if (wanted !== "") this.#texts ??= rows.map((cells) => cells.join(" ").toLowerCase());
    const texts = this.#texts;
    const found = wanted === "" ? [...rows] : rows.filter((_, i) => texts![i].includes(wanted));
    this.#visible = sorted(found, this.#sortBy, this.#isDescending ? -1 : 1);
    this.#element("shown").textContent = `${this.#visible.length} of ${this.#rows.length} ${this.#what}`;
    this.#draw();
  }

  #draw(): void {
    const { scrollTop, clientHeight } = this.#element("rows");
    const first = Math.max(0, Math.floor(scrollTop / ROW_PX) - MARGIN_ROWS);
    const end = Math.min(this.#visible.length, Math.ceil((scrollTop + clientHeight) / ROW_PX) + MARGIN_ROWS);
    const rows = this.#visible.slice(first, end).map(rowOf);
    this.#element("body").replaceChildren(gap(first), ...rows.map(make), gap(this.#visible.length - end));
  }

  #drawHead(): void {
    fill(
      `${this.#id}-columns`,
      this.#columns.map((name, i) => {
        const order = this.#isDescending ? "descending" : "ascending";
        const attributes = { scope: "col", "aria-sort": i === this.#sortBy ? order : "none" };
        return ["th", attributes, [["button", { type: "button" }, name]]];
      }),
    );
    const buttons = this.#element("columns").querySelectorAll("button");
    for (const [i, button] of buttons.entries()) {
      button.addEventListener("click", () => {
        this.#isDescending = i === this.#sortBy && !this.#isDescending;
        this.#sortBy = i;
        this.#drawHead();
        this.#element("columns").querySelectorAll("button")[i].focus();
        this.#arrange();
      });
    }
  }
}

function rowOf(cells: readonly Cell[]): Node {
  return ["tr", {}, cells.map((cell) => ["td", {}, cell === -1 ? "–" : String(cell)] as const)];
}

/** A row that takes the space of rows that are not in the page. */
function gap(rows: number): HTMLElement {
  const row = document.createElement("tr");
  row.style.height = `${rows * ROW_PX}px`;
  row.hidden = rows === 0;
  return row;
}

/**
 * Sorts by one cell of each row; numbers within texts count by their value. Keys are made once, because a collator takes ten times
 * as long.
 */
function sorted(rows: readonly (readonly Cell[])[], by: number, sign: number): (readonly Cell[])[] {
  const keyed = rows.map((cells) => ({ key: keyOf(cells[by]), cells }));
  keyed.sort((a, b) => (a.key < b.key ? -sign : a.key > b.key ? sign : 0));
  return keyed.map(({ cells }) => cells);
}

/** A text that sorts like its cell; negative numbers, which mean unknown values, come first. */
function keyOf(cell: Cell): string {
  if (cell === -1) return "";
  if (typeof cell === "number") return cell.toFixed(3).padStart(20, "0");
  return cell.replace(/\d+/g, (digits) => digits.padStart(12, "0"));
}
