/**
 * A profile as a roofline table.
 * @module
 */
import { conditionLines, formatNumber } from "../bench/format.ts";
import type { KernelProfile, PartProfile, ProfileReport } from "../profile.ts";
import { type Cell, formatMarkdownTable, formatTable } from "../table.ts";

/** The share of a step's wall time that its kernels must add up to; a note says where they do not. */
export const ACCOUNTED_SHARE = { least: 0.6, most: 1.1 };

/** The share of a step's kernels that its preference part is to stay under. */
export const PREFERENCE_GOAL = 0.02;

const HEADERS = ["kernel", "ms/step", "% of step", "dispatches", "GFLOP/s", "GB/s", "FLOP/byte", "% of roof"];

/**
 * @param report what `profileStep` returned
 * @param options.markdown a table that can be pasted into a document
 * @returns text, its last line ended
 */
export function formatProfile(report: ProfileReport, options: { markdown?: boolean } = {}): string {
  const table = options.markdown ? formatMarkdownTable : formatTable;
  const bullet = options.markdown ? "- " : "  ";
  const lines = (texts: readonly string[]) => texts.map((text) => `${bullet}${text}\n`).join("");
  return [
    conditionLines(report.conditions, bullet),
    `Profile: ${report.title}\n\n${table(HEADERS, report.kernels.map(row))}`,
    lines([ceilingLine(report), sumLine(report), partLine(report), preferenceLine(report)]),
  ].join("\n");
}

function row(kernel: KernelProfile): Cell[] {
  const { name, ms, share, dispatches, gflops, gbPerSecond, intensity, ofRoof } = kernel;
  const orNone = (value: number | undefined) => value === undefined ? "-" : formatNumber(value);
  return [
    name,
    formatNumber(ms),
    percent(share),
    formatNumber(dispatches),
    orNone(gflops),
    formatNumber(gbPerSecond),
    orNone(intensity),
    percent(ofRoof),
  ];
}

function percent(share: number): string {
  return (100 * share).toFixed(1);
}

function ceilingLine({ ceilings }: ProfileReport): string {
  const { gflops, matmulSize, gbPerSecond, copyBytes } = ceilings;
  return `Roof: min(${formatNumber(gflops)} GFLOP/s, FLOP/byte x ${
    formatNumber(gbPerSecond)
  } GB/s), measured at the ` +
    `start: the best product of ${matmulSize}^3, and a copy of ${
      Math.round(copyBytes / 2 ** 20)
    } MiB (read and written)`;
}

function sumLine({ kernelMs, stepMs, observedStepMs, steps }: ProfileReport): string {
  const share = kernelMs / observedStepMs;
  const { least, most } = ACCOUNTED_SHARE;
  const warning = share >= least && share <= most
    ? ""
    : `: NOT WITHIN ${percent(least)} TO ${
      percent(most)
    } %, this adapter's clock or its gaps between kernels mislead`;
  return `Kernels add up to ${formatNumber(kernelMs)} ms a step, ${
    percent(share)
  } % of its wall time while they are ` +
    `timed, ${
      formatNumber(observedStepMs)
    } ms; the rest is copies, clears, gaps and the wait${warning}. A step takes ` +
    `${formatNumber(stepMs)} ms in training (${steps} steps of each)`;
}

function partLine({ parts: { model, optimizer } }: ProfileReport): string {
  const ofAll = ({ ms, share }: PartProfile) => `${formatNumber(ms)} ms, ${percent(share)} %`;
  return `Model: ${ofAll(model)}; optimizer: ${ofAll(optimizer)}`;
}

function preferenceLine({ parts: { preference: { ms, share, kernels } } }: ProfileReport): string {
  const goal = share < PREFERENCE_GOAL ? "under the goal of" : "NOT UNDER THE GOAL OF";
  return `The preference part, all but the model, its head's log-probs and the optimizer (${
    kernels.join(", ") || "no kernel"
  }): ${formatNumber(ms)} ms, ${formatNumber(100 * share)} % of the kernels, ${goal} ${
    percent(PREFERENCE_GOAL)
  } %`;
}
