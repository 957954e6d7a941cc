/**
 * The report of runs: figures with a series for each run and phase, and tables side by side.
 * @module
 */
import type { MetricsRecord } from "../metrics.ts";
import { resultsTable } from "../session.ts";
import type { Cell } from "../table.ts";
import { configTable } from "./config_table.ts";
import type { Figure, LineSeries } from "./figure.ts";
import { lineFigure } from "./line_figure.ts";
import { type MetricPanel, otherPanels, PANEL_SECTIONS } from "./metric_panels.ts";
import type { Report, ReportSection, ReportTable } from "./page.ts";
import type { RunFiles } from "./read_run.ts";

/** Records of one phase of one run. */
interface Trace {
  readonly name: string;
  readonly records: readonly MetricsRecord[];
  /** Its place among all, so that it has one colour in every figure. */
  readonly color: number;
  readonly kind: TraceKind;
}

/** Losses of the two kinds are no comparison. */
type TraceKind = "supervised" | "preference";

/**
 * Makes the report of one or more runs.
 *
 * @param runs in the order of their series
 * @returns its content, for `reportPage`
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const records = [{ phase: "dpo", global_step: 1, loss: 0.69 }, { phase: "dpo", global_step: 2, loss: 0.5 }];
 * const report = runsReport([{ name: "mine", folder: "runs/mine", records, isCutOff: false, samples: [] }]);
 * assert.ok(report.sections.some(({ title }) => title === "Loss"));
 * ```
 */
export function runsReport(runs: readonly RunFiles[]): Report {
  const names = runNames(runs);
  const traces = runs.flatMap((run, index) =>
    tracesOf(run, { name: names[index], isAlone: runs.length === 1 })
  )
    .map((trace, color) => ({ ...trace, color }));
  const sections = [
    overview(runs, names),
    ...(traces.length > 1 || runs.length === 1 ? [finalValues(traces)] : []),
    ...PANEL_SECTIONS.map(({ title, note, panels }) => ({
      title,
      ...(note ? { paragraphs: [note] } : {}),
      figures: panels.flatMap((panel) => panelFigures(panel, traces)),
    })),
    {
      title: "Other metrics",
      figures: otherPanels(keysOf(traces)).flatMap((panel) => panelFigures(panel, traces)),
    },
    samplesSection(runs, names),
    settingsSection(runs, names),
  ];
  return {
    title: runs.length === 1 ? `Run ${names[0]}` : `${runs.length} runs`,
    subtitle: runs.map(({ folder }) => folder).join("\n"),
    sections: sections.filter(({ figures = [], tables = [] }: ReportSection) =>
      figures.length + tables.length > 0
    ),
    configuration: runs.length === 1
      ? runs[0].config
      : Object.fromEntries(runs.map(({ config = {} }, index) => [names[index], config])),
  };
}

/** Folders' names, or their paths where two have one name. */
function runNames(runs: readonly RunFiles[]): string[] {
  return runs.map(({ name, folder }) =>
    runs.filter((other) => other.name === name).length > 1 ? folder : name
  );
}

function tracesOf(
  { records }: RunFiles,
  { name, isAlone }: { name: string; isAlone: boolean },
): Omit<Trace, "color">[] {
  const phases = new Map<string, MetricsRecord[]>();
  for (const record of records) {
    const phase = String(record.phase ?? "");
    phases.set(phase, [...phases.get(phase) ?? [], record]);
  }
  return [...phases].map(([phase, records]) => ({
    name: isAlone ? phase || name : phases.size === 1 ? name : `${name}: ${phase}`,
    records,
    kind: records.some((record) => "rewards/margins" in record || "rewards/chosen" in record)
      ? "preference"
      : "supervised",
  }));
}

/** A figure of a panel, or one for each kind of phase where runs have both. */
function panelFigures(panel: MetricPanel, traces: readonly Trace[]): Figure[] {
  const kinds = [...new Set(traces.map(({ kind }) => kind))];
  return kinds.flatMap((kind) => {
    const series = traces.filter((trace) => trace.kind === kind).flatMap((trace) =>
      panelSeries(panel, trace)
    );
    if (series.length === 0) return [];
    const { label, unit } = panel;
    return [lineFigure({
      title: kinds.length > 1 && isInBoth(panel, traces)
        ? `${panel.title}: ${KIND_NAMES[kind]}`
        : panel.title,
      x: { label: "step", unit: "updates" },
      y: { label, unit },
      series,
    })];
  });
}

const KIND_NAMES: Readonly<Record<TraceKind, string>> = {
  supervised: "supervised training",
  preference: "preference training",
};

function isInBoth({ metrics }: MetricPanel, traces: readonly Trace[]): boolean {
  const kinds = traces.filter(({ records }) =>
    records.some((record) => metrics.some(({ key }) => key in record))
  )
    .map(({ kind }) => kind);
  return new Set(kinds).size > 1;
}

function panelSeries({ metrics, factor = 1 }: MetricPanel, trace: Trace): LineSeries[] {
  return metrics.flatMap(({ key, name }, index) => {
    const points = trace.records.flatMap((record) => {
      const value = record[key];
      return typeof value === "number" ? [{ x: Number(record.global_step), y: value * factor }] : [];
    });
    if (points.length === 0) return [];
    const { color } = trace;
    // Of one metric, the palette's second round is dashed as everywhere.
    const style = metrics.length > 1 ? { color, dashed: index > 0 } : { color };
    return [{ name: name === undefined ? trace.name : `${trace.name}, ${name}`, points, ...style }];
  });
}

function keysOf(traces: readonly Trace[]): string[] {
  const keys = new Set(traces.flatMap(({ records }) => records).flatMap((record) => Object.keys(record)));
  return [...keys];
}

function overview(runs: readonly RunFiles[], names: readonly string[]): ReportSection {
  const headers = ["run", "Keel", "adapter", "lines", "last step", "tokens", "state"];
  const rows = runs.map(({ records, config, results, isCutOff }, index): Cell[] => {
    const last = records[records.length - 1];
    const state = results ? "finished" : "stopped or under way: no results.json";
    return [
      names[index],
      typeof config?.keelVersion === "string" ? config.keelVersion : "-",
      results?.adapter ?? "-",
      records.length,
      last.global_step,
      last.num_tokens ?? "-",
      isCutOff ? `${state}; the last line of metrics.jsonl is cut off, 1 line left out` : state,
    ];
  });
  const results = runs.flatMap(({ results }, index): ReportTable[] =>
    results ? [{ caption: `Results: ${names[index]}`, ...resultsTable(results.results) }] : []
  );
  return {
    title: "Overview",
    tables: [{ caption: runs.length === 1 ? "The run" : "The runs", headers, rows }, ...results],
  };
}

/** The last logged value of every metric, a column for each run and phase. */
function finalValues(traces: readonly Trace[]): ReportSection {
  const keys = keysOf(traces).filter((key) => key !== "phase");
  const rows = keys.map((key): Cell[] => [
    key,
    ...traces.map(({ records }) => {
      const value = records.findLast((record) => key in record)?.[key];
      return typeof value === "number" ? Number(value.toPrecision(5)) : value ?? "-";
    }),
  ]);
  return {
    title: "Last values",
    tables: [{ caption: "Last logged values", headers: ["metric", ...traces.map(({ name }) => name)], rows }],
  };
}

function samplesSection(runs: readonly RunFiles[], names: readonly string[]): ReportSection {
  const tables = runs.flatMap(({ samples }, index): ReportTable[] => {
    const phases = [...new Set(samples.map(({ phase }) => phase))];
    const prompts = [...new Set(samples.map(({ prompt }) => prompt))];
    if (samples.length === 0) return [];
    return [{
      caption: `Greedy answers: ${names[index]}`,
      headers: ["prompt", "preferred", ...phases],
      rows: prompts.map((prompt) => {
        const of = samples.filter((sample) => sample.prompt === prompt);
        const answers = phases.map((phase) => of.find((sample) => sample.phase === phase)?.completion ?? "-");
        return [prompt, of[0].chosen ?? "-", ...answers];
      }),
    }];
  });
  return { title: "Samples", tables };
}

function settingsSection(runs: readonly RunFiles[], names: readonly string[]): ReportSection {
  if (runs.length < 2) return { title: "Settings" };
  const table = configTable(runs.map(({ config = {} }) => config), names);
  return { title: "Settings that differ", tables: [table] };
}
