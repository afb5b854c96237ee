import type { LaneStatus, SessionStatus } from "../src/host/status.ts";
import type { Node } from "./page.ts";
import { element, fill, make } from "./page.ts";

interface Row {
  readonly session: SessionStatus;
  readonly lane: LaneStatus;
}

type Cell = string | number;

const COLUMNS: Readonly<Record<string, (row: Row) => Cell>> = {
  Session: ({ session }) => session.session,
  Kind: ({ session }) => session.kind,
  State: ({ session }) => session.state,
  Associations: ({ session }) => session.associations,
  Lane: ({ lane }) => lane.lane,
  Health: ({ lane }) => (lane.isLate ? "late" : lane.state),
  "Round trip": ({ lane }) => (lane.rttMs === undefined ? -1 : Math.round(lane.rttMs * 10) / 10),
  Carrier: ({ lane }) => lane.carrier,
};
const NAMES = Object.keys(COLUMNS);
const ROW_PX = 28;
const MARGIN_ROWS = 10;

/** Lanes of all sessions, sorted and filtered; only rows in sight are in the page, so that ten thousand are as quick as ten. */
export class LaneTable {
  #rows: readonly (readonly Cell[])[] = [];
  #visible: readonly (readonly Cell[])[] = [];
  #sortBy = 0;
  #isDescending = false;

  constructor() {
    this.#drawHead();
    element("filter").addEventListener("input", () => this.#arrange());
    element("rows").addEventListener("scroll", () => this.#draw());
  }

  show(rows: readonly Row[]): void {
    this.#rows = rows.map((row) => NAMES.map((name) => COLUMNS[name](row)));
    this.#arrange();
  }

  #arrange(): void {
    const wanted = element<HTMLInputElement>("filter").value.toLowerCase();
    const by = this.#sortBy;
    const sign = this.#isDescending ? -1 : 1;
    this.#visible = this.#rows
      .filter((cells) => wanted === "" || cells.join(" ").toLowerCase().includes(wanted))
      .sort((a, b) => sign * compare(a[by], b[by]));
    element("shown").textContent = `${this.#visible.length} of ${this.#rows.length} lanes`;
    this.#draw();
  }

  #draw(): void {
    const { scrollTop, clientHeight } = element("rows");
    const first = Math.max(0, Math.floor(scrollTop / ROW_PX) - MARGIN_ROWS);
    const end = Math.min(this.#visible.length, Math.ceil((scrollTop + clientHeight) / ROW_PX) + MARGIN_ROWS);
    const rows = this.#visible.slice(first, end).map(rowOf);
    element("body").replaceChildren(gap(first), ...rows.map(make), gap(this.#visible.length - end));
  }

  #drawHead(): void {
    fill(
      "columns",
      NAMES.map((name, i) => {
        const order = this.#isDescending ? "descending" : "ascending";
        const attributes = { scope: "col", "aria-sort": i === this.#sortBy ? order : "none" };
        return ["th", attributes, [["button", { type: "button" }, name]]];
      }),
    );
    for (const [i, button] of element("columns").querySelectorAll("button").entries()) {
      button.addEventListener("click", () => {
        this.#isDescending = i === this.#sortBy && !this.#isDescending;
        this.#sortBy = i;
        this.#drawHead();
        element("columns").querySelectorAll("button")[i].focus();
        this.#arrange();
      });
    }
  }
}

function rowOf(cells: readonly Cell[]): Node {
  return ["tr", {}, cells.map((cell) => ["td", {}, cell === -1 ? "–" : String(cell)] as const)];
}

/** A row that takes the room of those that are not there. */
function gap(rows: number): HTMLElement {
  const row = document.createElement("tr");
  row.style.height = `${rows * ROW_PX}px`;
  row.hidden = rows === 0;
  return row;
}

function compare(a: Cell, b: Cell): number {
  return typeof a === "number" && typeof b === "number"
    ? a - b
    : String(a).localeCompare(String(b), "en", { numeric: true });
}
