// Plots as SVG, and their page: one file, no script, readable in light and dark.
import { format } from "./tables.mjs";

/** @typedef {{ name: string, points: [x: number, y: number][] }} Line */
/** @typedef {{ name: string, parts: number[] }} Bar */

const WIDTH = 560;
const HEIGHT = 320;
const [LEFT, RIGHT, TOP, BOTTOM] = [64, 124, 12, 44];
/** Number of points of a line from which dots are small. */
const MANY_POINTS = 40;
const BAR_HEIGHT = 22;
const BAR_LEFT = 130;
const BAR_RIGHT = 84;

const STYLE = `
:root { color-scheme: light dark; --page: #fcfcfb; --ink: #1b1b1a; --quiet: #62615c; --rule: #e3e2de;
  --s0: #2a78d6; --s1: #1baf7a; --s2: #eb6834; --s3: #b98500; --s4: #d0568a; --s5: #4a3aa7; --bare: #8a8984; }
@media (prefers-color-scheme: dark) { :root { --page: #1a1a19; --ink: #f1f0ec; --quiet: #a9a8a2; --rule: #373734;
  --s0: #3987e5; --s1: #1fa877; --s2: #e0652f; --s3: #c98500; --s4: #d55181; --s5: #9085e9; --bare: #85847f; } }
body { background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1rem; margin: 0 0 .25rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; } dt { color: var(--quiet); } dd { margin: 0; overflow-wrap: anywhere; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 500px), 1fr)); gap: 2rem 1.5rem; margin: 2rem 0; }
figure { margin: 0; } figcaption { color: var(--quiet); font-size: .85rem; } svg { width: 100%; height: auto; }
text { fill: var(--quiet); font: 12px system-ui, sans-serif; } .name { fill: var(--ink); }
.rule { stroke: var(--rule); } polyline { fill: none; stroke-width: 2; stroke-linejoin: round; }
.tables { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; margin: .5rem 0 2rem; }
th, td { padding: .15rem .7rem; border-bottom: 1px solid var(--rule); text-align: right; white-space: nowrap; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; } th { color: var(--quiet); font-weight: 500; }
`;

/** @param {string} text */
function escapeHtml(text) {
  return text.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`);
}

/** Round numbers that span from 0 to at least a value. @param {number} highest */
function linearTicks(highest) {
  const rough = highest / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough) ?? rough;
  const count = Math.ceil(highest / step);
  return Array.from({ length: count + 1 }, (_, i) => i * step);
}

/** Powers of ten around values. @param {number} lowest @param {number} highest */
function logTicks(lowest, highest) {
  const [from, to] = [Math.floor(Math.log10(lowest)), Math.ceil(Math.log10(highest))];
  return Array.from({ length: Math.max(1, to - from) + 1 }, (_, i) => 10 ** (from + i));
}

/** @param {number} value */
function short(value) {
  if (value >= 1e6) return `${Number((value / 1e6).toPrecision(3))} M`;
  if (value >= 1e3) return `${Number((value / 1e3).toPrecision(3))} k`;
  return String(Number(value.toPrecision(3)));
}

/** @param {string} title @param {string} caption @param {number} height @param {string} body */
function figure(title, caption, height, body) {
  return `<figure><h2>${escapeHtml(title)}</h2>
<svg viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="${escapeHtml(title)}">${body}</svg>
<figcaption>${escapeHtml(caption)}</figcaption></figure>`;
}

/** @param {string[]} names  of the subjects, in the order of the run @returns {(name: string) => string} */
export function colours(names) {
  const tunnels = names.filter((name) => name !== "bare");
  return (name) => (name === "bare" ? "var(--bare)" : `var(--s${tunnels.indexOf(name) % 6})`);
}

/**
 * @param {string} title @param {string} caption @param {Line[]} lines @param {(name: string) => string} colour
 * @param {{ xName: string, yName: string, isLogY?: boolean, isLogX?: boolean }} axes
 */
export function linePlot(title, caption, lines, colour, { xName, yName, isLogY = false, isLogX = false }) {
  const drawn = lines
    .map(({ name, points }) => ({
      name,
      points: points.filter(([x, y]) => (isLogX ? x > 0 : x >= 0) && (isLogY ? y > 0 : y >= 0)),
    }))
    .filter(({ points }) => points.length > 0);
  if (drawn.length === 0) return "";
  const [xs, ys] = [0, 1].map((axis) => drawn.flatMap(({ points }) => points.map((point) => point[axis])));
  const xTicks = isLogX ? logTicks(Math.min(...xs), Math.max(...xs)) : linearTicks(Math.max(...xs));
  const yTicks = isLogY ? logTicks(Math.min(...ys), Math.max(...ys)) : linearTicks(Math.max(...ys));
  /** @param {number} value @param {number[]} ticks @param {boolean} isLog */
  const share = (value, ticks, isLog) => {
    const scale = isLog ? Math.log10 : (/** @type {number} */ number) => number;
    const [low, high] = [scale(ticks[0]), scale(/** @type {number} */ (ticks.at(-1)))];
    return (scale(value) - low) / (high - low);
  };
  const x = (/** @type {number} */ value) => LEFT + share(value, xTicks, isLogX) * (WIDTH - LEFT - RIGHT);
  const y = (/** @type {number} */ value) =>
    HEIGHT - BOTTOM - share(value, yTicks, isLogY) * (HEIGHT - TOP - BOTTOM);
  const grid = [
    ...yTicks.map(
      (tick) =>
        `<line class="rule" x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${y(tick)}" y2="${y(tick)}"/>` +
        `<text x="${LEFT - 8}" y="${y(tick) + 4}" text-anchor="end">${short(tick)}</text>`,
    ),
    ...xTicks.map(
      (tick) => `<text x="${x(tick)}" y="${HEIGHT - BOTTOM + 18}" text-anchor="middle">${short(tick)}</text>`,
    ),
    `<text x="${(LEFT + WIDTH - RIGHT) / 2}" y="${HEIGHT - 6}" text-anchor="middle">${escapeHtml(xName)}</text>`,
    `<text transform="translate(14 ${(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">${escapeHtml(yName)}</text>`,
  ].join("");
  // Places names at the ends of their lines and moves them apart.
  const ends = drawn
    .map(({ name, points }) => ({ name, at: y(points[points.length - 1][1]) }))
    .sort((a, b) => a.at - b.at);
  for (let i = 1; i < ends.length; i++) ends[i].at = Math.max(ends[i].at, ends[i - 1].at + 15);
  const over = Math.max(0, ends[ends.length - 1].at - (HEIGHT - BOTTOM));
  for (const end of ends) end.at -= over;
  const series = drawn.map(({ name, points }) => {
    const radius = points.length > MANY_POINTS ? 1.5 : 4;
    const at = points.map(([px, py]) => `${x(px).toFixed(1)},${y(py).toFixed(1)}`).join(" ");
    const dots = points.map(
      ([px, py]) =>
        `<circle cx="${x(px).toFixed(1)}" cy="${y(py).toFixed(1)}" r="${radius}" fill="${colour(name)}">` +
        `<title>${escapeHtml(name)}: ${format(px)}: ${format(py, py < 100 ? 1 : 0)}</title></circle>`,
    );
    return `<polyline stroke="${colour(name)}" points="${at}"/>${dots.join("")}`;
  });
  const labels = ends.map(
    ({ name, at }) =>
      `<circle cx="${WIDTH - RIGHT + 12}" cy="${at}" r="4" fill="${colour(name)}"/>` +
      `<text class="name" x="${WIDTH - RIGHT + 20}" y="${at + 4}">${escapeHtml(name)}</text>`,
  );
  return figure(title, caption, HEIGHT, grid + series.join("") + labels.join(""));
}

/** Draws the parts of a bar side by side, later ones paler. @param {string} title @param {string} caption @param {Bar[]} bars @param {(name: string) => string} colour @param {string} unit */
export function barPlot(title, caption, bars, colour, unit) {
  const sum = (/** @type {number[]} */ parts) => parts.reduce((total, part) => total + part, 0);
  const drawn = bars.filter(({ parts }) => Number.isFinite(sum(parts)));
  if (drawn.length === 0) return "";
  const highest = Math.max(...drawn.map(({ parts }) => sum(parts)), Number.MIN_VALUE);
  const scale = (WIDTH - BAR_LEFT - BAR_RIGHT) / highest;
  const body = drawn.map(({ name, parts }, row) => {
    const top = row * (BAR_HEIGHT + 8) + 4;
    let left = BAR_LEFT;
    const rects = parts.map((part, i) => {
      const rect = `<rect x="${left.toFixed(1)}" y="${top}" width="${Math.max(1, part * scale - 2).toFixed(1)}" height="${BAR_HEIGHT}" rx="2" fill="${colour(name)}" opacity="${i === 0 ? 1 : 0.55}"><title>${format(part, part < 100 ? 2 : 0)} ${unit}</title></rect>`;
      left += part * scale;
      return rect;
    });
    const total = sum(parts);
    return (
      `<text class="name" x="${BAR_LEFT - 8}" y="${top + 15}" text-anchor="end">${escapeHtml(name)}</text>${rects.join("")}` +
      `<text x="${left + 6}" y="${top + 15}">${total < 100 ? format(total, total < 10 ? 2 : 1) : short(total)} ${unit}</text>`
    );
  });
  return figure(title, caption, drawn.length * (BAR_HEIGHT + 8) + 4, body.join(""));
}

/**
 * @param {string} title @param {string} heading @param {string[][]} facts  names and values @param {string[]} plots
 * @param {import("./tables.mjs").Table[]} tables
 */
export function page(title, heading, facts, plots, tables) {
  const row = (/** @type {string[]} */ cells, /** @type {string} */ tag) =>
    `<tr>${cells.map((cell) => `<${tag}>${escapeHtml(cell)}</${tag}>`).join("")}</tr>`;
  const numbers = tables.map(
    ({ title, header, rows }) =>
      `<h2>${escapeHtml(title)}</h2><table>${row(header, "th")}${rows.map((cells) => row(cells, "td")).join("")}</table>`,
  );
  const list = facts.map(([name, value]) => `<dt>${name}</dt><dd>${escapeHtml(value)}</dd>`);
  return `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)}</title><style>${STYLE}</style>
<h1>${escapeHtml(heading)}</h1>
<dl>${list.join("")}</dl>
<div class="plots">${plots.join("\n")}</div>
<div class="tables">${numbers.join("\n")}</div>
</html>
`;
}
