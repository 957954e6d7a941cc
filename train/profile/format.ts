/**
 * A profile as a roofline table.
 * @module
 */
import { conditionLines, formatNumber } from "../bench/format.ts";
import type { KernelProfile, ProfileReport } from "../profile.ts";
import { type Cell, formatMarkdownTable, formatTable } from "../table.ts";

/** The share of a step's wall time that its kernels must add up to; a note says where they do not. */
export const ACCOUNTED_SHARE = { least: 0.6, most: 1.1 };

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
    lines([ceilingLine(report), sumLine(report), partLine(report)]),
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

function partLine({ parts, kernelMs }: ProfileReport): string {
  const share = (ms: number) => `${formatNumber(ms)} ms, ${percent(ms / kernelMs)} %`;
  return `The preference part (sequence sums, loss, and their backward): ${
    share(parts.preference)
  }; optimizer: ${share(parts.optimizer)}; model: ${share(parts.model)}`;
}
