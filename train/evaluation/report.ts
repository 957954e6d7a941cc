/**
 * What an evaluation found, as an object and as a table.
 * @module
 */
import { type Cell, formatTable } from "../table.ts";
import type { EvaluationTask } from "./task_names.ts";
import type { ExactMatchEvaluation } from "./exact_match.ts";
import type { PerplexityEvaluation } from "./perplexity.ts";
import type { PreferenceEvaluation } from "./preferences.ts";
import type { Mean, Proportion } from "./statistics.ts";

/** What was measured on what, and how. */
export interface EvaluationReport {
  readonly task: EvaluationTask;
  readonly model: string;
  /** The file; generated tasks have none. */
  readonly data?: string;
  /** The adapter that computed it: another rounds differently. */
  readonly adapter: string;
  /** Every setting that had a part in the numbers. */
  readonly settings: Readonly<Record<string, string | number>>;
  readonly results: PreferenceEvaluation | PerplexityEvaluation | ExactMatchEvaluation;
}

type Row = readonly [metric: string, value: Cell, uncertainty: string];

/**
 * A report for a terminal: what was measured, then a row for each number with its 95 % interval or standard error.
 *
 * @param report of an evaluation
 * @returns lines, the last one ended
 */
export function formatReport(report: EvaluationReport): string {
  const { task, model, data, settings, results } = report;
  const rows = "perplexity" in results
    ? perplexityRows(results)
    : "exactMatch" in results
    ? answerRows(results)
    : preferenceRows(results);
  const notes = Object.entries(settings).map(([name, value]) => `${name} ${value}`).join(", ");
  const title = `${task} of ${model}${data === undefined ? "" : ` on ${data}`} (${notes})`;
  return `${title}\n\n${formatTable(["metric", "value", "95 % interval or standard error"], rows)}`;
}

function preferenceRows(results: PreferenceEvaluation): Row[] {
  const { reference } = results;
  return [
    ["pairs", results.pairs, ""],
    share("accuracy", results.accuracy),
    share("accuracy per token", results.accuracyPerToken),
    mean("logps/chosen", results.logpsChosen),
    mean("logps/rejected", results.logpsRejected),
    mean("logps/chosen per token", results.logpsChosenPerToken),
    mean("logps/rejected per token", results.logpsRejectedPerToken),
    ...(reference
      ? [
        share("reward accuracy", reference.rewardAccuracy),
        mean("reward margin", reference.rewardMargin),
        mean("chosen delta", reference.chosenDelta),
        mean("rejected delta", reference.rejectedDelta),
      ]
      : []),
  ];
}

function perplexityRows(results: PerplexityEvaluation): Row[] {
  return [
    ["texts", results.texts, ""],
    ["tokens", results.tokens, ""],
    ["bytes", results.bytes, ""],
    ["nats per token", (results.negativeLogLikelihood / results.tokens).toFixed(4), ""],
    ["perplexity", results.perplexity.toPrecision(6), ""],
    ["bits per byte", results.bitsPerByte.toFixed(4), ""],
  ];
}

function answerRows(results: ExactMatchEvaluation): Row[] {
  const shares = Object.entries(results.exactMatch);
  const nameOf = (measure: string) => (shares.length > 1 ? `exact match (${measure})` : "exact match");
  return [
    ["questions", results.questions, ""],
    ...shares.map(([measure, found]) => share(nameOf(measure), found)),
    ["answers without an end", results.unended, ""],
  ];
}

function share(metric: string, { value, low, high }: Proportion): Row {
  const percent = (part: number) => (part * 100).toFixed(1);
  return [metric, `${percent(value)} %`, `${percent(low)} to ${percent(high)} %`];
}

function mean(metric: string, { value, standardError }: Mean): Row {
  return [metric, value.toFixed(3), standardError === undefined ? "" : `± ${standardError.toFixed(3)}`];
}
