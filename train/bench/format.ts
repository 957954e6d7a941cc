/**
 * A benchmark's report as tables.
 * @module
 */
import type { Tile } from "../../shaders/tile.ts";
import type { BenchReport } from "../bench.ts";
import { type Cell, formatMarkdownTable, formatTable } from "../table.ts";
import { MAX_BURST } from "../generation/decoder.ts";
import type { Conditions } from "./conditions.ts";
import type { DecodingResult } from "./decoding.ts";
import { type GrowthResult, slopeRatio } from "./growth.ts";
import type { MatmulResult } from "./matmul.ts";
import type { Summary } from "./measure.ts";
import { describeShape } from "./shapes.ts";
import { STEP_KINDS } from "./training.ts";

/** A table before it is text. */
interface Table {
  readonly title: string;
  readonly headers: readonly string[];
  readonly rows: readonly (readonly Cell[])[];
  readonly notes?: readonly string[];
}

/**
 * @param report what `runBench` returned
 * @param options.markdown tables that can be pasted into a document
 * @returns text, its last line ended
 */
export function formatBench(report: BenchReport, options: { markdown?: boolean } = {}): string {
  const table = options.markdown ? formatMarkdownTable : formatTable;
  const bullet = options.markdown ? "- " : "  ";
  const tables = [
    ...(report.matmul.length > 0 ? [matmulTable(report.matmul)] : []),
    ...(report.tiles.length > 0 ? [tileTable(report.tiles)] : []),
    ...(report.training.length > 0 ? [trainingTable(report)] : []),
    ...(report.growth.length > 0 ? [growthTable(report.growth)] : []),
  ];
  const parts = tables.map(({ title, headers, rows, notes = [] }) => {
    const lines = notes.map((note) => `${bullet}${note}\n`).join("");
    return `${title}\n\n${table(headers, rows)}${lines && `\n${lines}`}`;
  });
  return [conditionLines(report.conditions, bullet), ...parts].join("\n");
}

/**
 * @param results of `benchDecoding`
 * @param options.title what was measured
 * @param options.conditions of the machine
 * @param options.markdown a table that can be pasted into a document
 * @returns text, its last line ended
 */
export function formatDecoding(
  results: readonly DecodingResult[],
  { title, conditions, markdown = false }: { title: string; conditions: Conditions; markdown?: boolean },
): string {
  const rate = ({ median, min, max }: Summary) =>
    `${Math.round(median)} (${Math.round(min)} to ${Math.round(max)})`;
  const headers = [
    "sequences",
    "prompt",
    "new",
    "prefill",
    "greedy",
    "logits",
    "no cache",
    "greedy/no cache",
  ];
  const rows = results.map((one) => [
    ...[one.batch, one.promptTokens, one.newTokens],
    ...[one.prefill, one.greedy, one.logits, one.recomputed].map(rate),
    formatNumber(one.greedy.median / one.recomputed.median),
  ]);
  const bullet = markdown ? "- " : "  ";
  const notes = [
    `tokens of all sequences together; greedy waits for the device every ${MAX_BURST} tokens, logits (as sampling does) ` +
    "at each",
    "no cache: the whole sequence again for each token, at the length halfway through the new tokens",
  ].map((note) => `${bullet}${note}\n`).join("");
  const table = (markdown ? formatMarkdownTable : formatTable)(headers, rows);
  return `${
    conditionLines(conditions, bullet)
  }\nGeneration, ${title}; tokens/s (median, min to max)\n\n${table}\n${notes}`;
}

/** How a tiling is written: where operands come from, results a lane, lanes a workgroup. */
export function describeTile({ memory, rows, cols, lanesX, lanesY, depth }: Tile): string {
  const depthText = memory === "workgroup" ? `, ${depth} deep` : "";
  return `${memory}, ${rows} x ${cols} a lane, ${lanesX} x ${lanesY} lanes${depthText}`;
}

/** Three significant digits, never an exponent; integers whole. */
export function formatNumber(value: number): string {
  if (Number.isInteger(value)) return String(value);
  const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  return value.toFixed(Math.min(digits, 6));
}

function spread({ median, min, max }: Summary): Cell[] {
  return [median, min, max].map(formatNumber);
}

/** The machine, the versions and how quiet it was, a line each. */
export function conditionLines(conditions: Conditions, bullet: string): string {
  const { adapter, isCpu, features, keel, deno, system, cpu, cores, load, date } = conditions;
  return [
    `Adapter: ${adapter}${isCpu ? " (software)" : ""}; features: ${features.join(", ") || "none"}`,
    `Keel ${keel}, Deno ${deno}, ${system}, ${cpu}, ${cores} cores`,
    `${date}, load average ${load.toFixed(2)} at the start${busy(load, cores)}`,
  ].map((line) => `${bullet}${line}\n`).join("");
}

/** A software adapter uses every core, and on any adapter recording competes with whatever else runs. */
function busy(load: number, cores: number): string {
  return load > cores / 4 ? ": THE MACHINE WAS NOT QUIET, read ratios only" : "";
}

function matmulTable(results: readonly MatmulResult[]): Table {
  return {
    title: "Matrix product, f32, M = N = K, GFLOP/s (median, min, max)",
    headers: ["kind", "size", "median", "min", "max", "ms", "a sample"],
    rows: results.map(({ kind, size, gflops, productMs, productsPerSample }) => [
      kind,
      size,
      ...spread(gflops),
      formatNumber(productMs.median),
      productsPerSample,
    ]),
  };
}

function tileTable(results: readonly MatmulResult[]): Table {
  return {
    title: `Tilings, M = N = K = ${results[0].size}, GFLOP/s (median, min, max)`,
    headers: ["kind", "tiling", "median", "min", "max"],
    rows: results.map(({ kind, tile, gflops }) => [kind, describeTile(tile), ...spread(gflops)]),
  };
}

function trainingTable({ training, shape }: BenchReport): Table {
  return {
    title: `Training step, f32: ${describeShape(shape)}; ms (median, min, max)`,
    headers: ["step", "median", "min", "max", "tokens/s", "dispatches", "submits", "awaits"],
    rows: training.map((result) => [
      result.kind,
      ...spread(result.stepMs),
      Math.round(result.tokensPerSecond.median),
      formatNumber(result.dispatchesPerStep),
      formatNumber(result.submitsPerStep),
      formatNumber(result.awaitsPerStep),
    ]),
    notes: training.map(({ kind, sequences, tokens, stepsPerSample }) =>
      `${kind}: ${
        STEP_KINDS[kind]
      }; ${sequences} sequences, ${tokens} tokens a step; ${stepsPerSample} steps a sample`
    ),
  };
}

function growthTable(results: readonly GrowthResult[]): Table {
  const mib = (bytes: number) => formatNumber(bytes / 2 ** 20);
  return {
    title:
      "Growth of a DPO step with a cached reference: one extent at 1, 2 and 4 times its start, the others fixed",
    headers: ["extent", "values", "ms/step", "slopes", "GPU MiB", "slopes"],
    rows: results.map(({ axis, extents, stepMs, memoryBytes }) => [
      axis,
      extents.join(", "),
      stepMs.map(formatNumber).join(", "),
      formatNumber(slopeRatio(stepMs)),
      memoryBytes.map(mib).join(", "),
      formatNumber(slopeRatio(memoryBytes)),
    ]),
    notes: [
      "slopes: of the second stretch over the first; 1 is linear past a constant part, 2 a square",
      "attention is a square of the length, products with weights a square of the width; all else is linear",
    ],
  };
}
