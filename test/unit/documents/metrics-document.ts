import type { Metric } from "../../../src/core/metrics/table.ts";
import { METRICS } from "../../../src/core/metrics/table.ts";

const HEAD = `# Metrics

This page lists what an endpoint measures. The first column has the names for Prometheus; the second has the members of \`stats()\`, which are in
milliseconds and bits where Prometheus uses seconds and bytes. Counts begin at the start of the program; \`in\` and _received_ mean out of a
tunnel, \`out\` and _sent_ into a tunnel. \`npx vitest run --project unit test/unit/node/metrics.test.ts -u\` generates this page from
\`src/core/metrics/table.ts\`.

Histograms are sampled once per batch, receipt or heartbeat, so they cost nothing per datagram. Datagrams that native I/O carries by itself
add one value per flow and report, at most ten times per second: the size of the last one, and no delay.
`;

/** A table as the formatter of this repository writes it. */
function table(rows: readonly (readonly string[])[]): string[] {
  const widths = rows[0].map((_, column) => Math.max(3, ...rows.map((row) => row[column].length)));
  const line = (row: readonly string[]) =>
    `| ${row.map((cell, column) => cell.padEnd(widths[column])).join(" | ")} |`;
  return [line(rows[0]), line(widths.map((width) => "-".repeat(width))), ...rows.slice(1).map(line)];
}

function section(title: string, metrics: readonly Metric[]): string {
  const rows = metrics.map(({ name, stat, kind, label, help }) => {
    const labels = label === undefined ? "" : `{${label.name}}`;
    return [`\`${name}${labels}\``, `\`${stat}\``, kind, help];
  });
  return ["", `## ${title}`, "", ...table([["Name", "In `stats()`", "Kind", "Meaning"], ...rows]), ""].join(
    "\n",
  );
}

function explanations({ name, label, bounds }: Metric): string {
  const lines: string[] = [];
  if (label?.values !== undefined) {
    const rows = Object.entries(label.values).map(([value, { meaning, remedy }]) => [
      `\`${value}\``,
      meaning,
      remedy,
    ]);
    lines.push("", `### ${label.name} of ${name}`, "");
    lines.push(...table([["Value", "Meaning", "What to do"], ...rows]), "");
  }
  if (bounds !== undefined)
    lines.push("", `Bounds of \`${name}\`, in the unit of \`stats()\`: ${bounds.join(", ")}.`, "");
  return lines.join("\n");
}

/** The text of docs/reference/metrics.md. */
export function metricsDocument(): string {
  const own = METRICS.filter(({ isOfTun2Socks }) => !isOfTun2Socks);
  return [
    HEAD,
    section("Both ends", own),
    section(
      "tun2socks, and udp-server's egress to one",
      METRICS.filter(({ isOfTun2Socks }) => isOfTun2Socks),
    ),
    "\n## Labels and bounds\n",
    ...METRICS.map(explanations),
  ]
    .join("")
    .replace(/\n{3,}/g, "\n\n");
}
