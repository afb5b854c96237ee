// A page of plots from the records of a run.
import { describe } from "./machine.mjs";
import { EQUAL_RATE, LOSS_LIMIT } from "./measure.mjs";
import { barPlot, colours, linePlot, page } from "./plots.mjs";
import { distinct, medianOf, select } from "./statistics.mjs";
import { format, loadName, tables } from "./tables.mjs";

/** @typedef {import("./measure.mjs").BenchRecord} BenchRecord */
/** @typedef {import("./plots.mjs").Line} Line */
/** @typedef {import("./plots.mjs").Bar} Bar */

/** @param {import("./machine.mjs").Machine} about @param {BenchRecord[]} records */
export function reportPage(about, records) {
  const names = distinct(records, "subject");
  const colour = colours(names);
  /** @param {Record<string, unknown>} like @param {string} x @param {string} y @returns {Line[]} */
  const lines = (like, x, y) => {
    const runs = select(records, like);
    return names.map((subject) => ({
      name: subject,
      points: distinct(runs, "rate").map((rate) => [
        medianOf(runs, { subject, rate }, (record) => record[x]),
        medianOf(runs, { subject, rate }, (record) => record[y]),
      ]),
    }));
  };
  /** @param {Record<string, unknown>} like @param {((record: BenchRecord) => number)[]} parts @param {boolean} [isWithBare] @returns {Bar[]} */
  const bars = (like, parts, isWithBare = false) =>
    names
      .filter((name) => isWithBare || name !== "bare")
      .map((subject) => ({
        name: subject,
        parts: parts.map((part) => medianOf(records, { ...like, subject }, part)),
      }));
  const ends = [
    (/** @type {BenchRecord} */ record) => record.localUs,
    (/** @type {BenchRecord} */ record) => record.serverUs,
  ];
  const floods = select(records, { measure: "flood", sockets: 1 });
  const floodLoads = distinct(floods, "size").flatMap((size) =>
    distinct(select(floods, { size }), "burst").map((burst) => ({ size, burst })),
  );
  const roundTrip = "Sent at a fixed rate, singles, answered by the target.";
  const fixed = "Fixed rates, 1,200 bytes, singles; medians over the rounds.";
  const many = select(records, { measure: "flood", subject: "underpass", size: 1200 });
  const plots = [
    linePlot("Delivered against offered", fixed, lines({ measure: "rate" }, "offered", "delivered"), colour, {
      ...{ xName: "offered/s", yName: "delivered/s" },
    }),
    ...["p50", "p99"].map((share) =>
      linePlot(
        `Delay one way against rate: ${share}`,
        fixed,
        lines({ measure: "rate" }, "offered", share),
        colour,
        {
          ...{ xName: "offered/s", yName: "µs", isLogY: true },
        },
      ),
    ),
    ...["p50", "p99"].map((share) =>
      linePlot(
        `Round trip against rate: ${share}`,
        roundTrip,
        lines({ measure: "round-trip" }, "offered", share),
        colour,
        { xName: "offered/s", yName: "µs", isLogY: true },
      ),
    ),
    ...floodLoads.flatMap((load) => [
      barPlot(
        `Flood, ${loadName(load)}: delivered/s`,
        "One association. bare: no tunnel, the most that the load generator makes.",
        bars({ measure: "flood", sockets: 1, ...load }, [(record) => record.delivered], load.burst === 1),
        colour,
        "/s",
      ),
    ]),
    ...distinct(select(records, { measure: "cpu" }), "burst").map((burst) =>
      barPlot(
        `CPU of a datagram at ${format(EQUAL_RATE)}/s, ${loadName({ size: 1200, burst })}`,
        "udp-local's end, then paler the server's. Those that do not keep up are charged for what they delivered.",
        bars({ measure: "cpu", burst }, ends),
        colour,
        "µs",
      ),
    ),
    ...floodLoads
      .filter(({ size }) => size === 1200)
      .map((load) =>
        barPlot(
          `CPU of a datagram under flood, ${loadName(load)}`,
          "The local end, then paler the server.",
          bars({ measure: "flood", sockets: 1, ...load }, ends),
          colour,
          "µs",
        ),
      ),
    ...distinct(select(records, { measure: "capacity" }), "burst").map((burst) =>
      barPlot(
        `Highest rate with loss under ${LOSS_LIMIT * 100} %, ${loadName({ size: 1200, burst })}`,
        "bare: no tunnel.",
        bars({ measure: "capacity", burst }, [(record) => record.offered], true),
        colour,
        "/s",
      ),
    ),
    ...distinct(select(records, { measure: "ping" }), "size").flatMap((size) =>
      ["p50", "p99"].map((share) =>
        barPlot(
          `Round trip, one outstanding, ${format(size)} bytes: ${share}`,
          "bare: no tunnel.",
          bars({ measure: "ping", size }, [(record) => record[share]], true),
          colour,
          "µs",
        ),
      ),
    ),
    barPlot(
      "Underpass by associations: delivered/s under flood",
      "1,200 bytes, native.",
      distinct(many, "burst").flatMap((burst) =>
        distinct(select(many, { burst }), "sockets").map((sockets) => ({
          name: `${format(sockets)}, ${burst === 1 ? "singles" : `bursts ${burst}`}`,
          parts: [medianOf(many, { burst, sockets }, (record) => record.delivered)],
        })),
      ),
      () => colour("underpass"),
      "/s",
    ),
    ...distinct(select(records, { measure: "memory" }), "associations").map((associations) =>
      barPlot(
        `Resident memory with ${format(associations)} associations`,
        "The local end, then paler the server.",
        bars({ measure: "memory", associations }, [
          (record) => record.local / 1e6,
          (record) => record.server / 1e6,
        ]),
        colour,
        "MB",
      ),
    ),
  ];
  return page(
    "Underpass: benchmarks",
    "Underpass beside other tunnels",
    describe(about),
    plots,
    tables(records),
  );
}
