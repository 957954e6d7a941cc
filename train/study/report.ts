/**
 * The study as a report: the page and the document have the same sections.
 * @module
 */
import { barFigure } from "../report/bar_figure.ts";
import type { Figure } from "../report/figure.ts";
import { lineFigure } from "../report/line_figure.ts";
import type { Report, ReportSection, ReportTable } from "../report/page.ts";
import { scatterFigure } from "../report/scatter_figure.ts";
import type { EvolutionPoint } from "./measure.ts";
import { BASE_METHODS } from "./settings.ts";
import { rankCorrelation, type Spread, spreadOf } from "./statistics.ts";
import type { GroupResult, SftMeasures, StudyResult } from "./study.ts";
import { toySections } from "./toy_sections.ts";
import type { RunResult } from "./train_run.ts";

type Row = GroupResult["rows"][number];

/** Axes that several figures have. */
const STEP = { label: "training step", unit: "steps" } as const;
const LOGP = { label: "mean log-probability of the answer", unit: "nats" } as const;
const ACCURACY = { label: "exact match", unit: "%", domain: [0, 100] } as const;

/**
 * @param study all of it
 * @returns what the page and the document show
 */
export function studyReport(study: StudyResult): Report {
  const { settings, adapter } = study;
  return {
    title: "What Stable Preference Optimization changes",
    subtitle: `${settings.seeds} ${settings.seeds === 1 ? "seed" : "seeds"}, ${adapter}`,
    sections: [
      comparisonSection(study),
      verdictSection(study),
      evolutionSection(study),
      tokensSection(study),
      chesSection(study),
      ...study.sensitivities.map((group) => sensitivitySection(group, study)),
      ...toySections(),
    ],
    configuration: settings,
  };
}

const percent = (share: number) => share * 100;

function comparisonSection({ comparison, sft, settings }: StudyResult): ReportSection {
  const { sft: phase, preference } = settings;
  return {
    title: "Comparison",
    paragraphs: [
      `A model of two layers learns chains of arithmetic from random weights (${phase.steps} steps of ${phase.batchSize}). From ` +
      `the same weights each method trains ${preference.steps} steps of ${preference.batchSize} pairs at a learning rate of ` +
      `${preference.learningRate}; chosen is the right chain, rejected the same chain with one digit changed. SPO is the ` +
      "penalty solver with its defaults: linear, lambda 1, on the batch's own chosen answers.",
      `Measured on ${settings.heldOut} held-out problems; the out-of-distribution (OOD) mass, 1 minus the probability of the ` +
      `right chain and of its 36 one-digit corruptions, on ${settings.massProblems} of them. Means over the seeds, with the ` +
      "lowest and the highest. Deltas are mean changes of an answer's log-probability since SFT, in nats.",
      "Two rows must be equal by construction, and are the check of that: with answers of one length the linear penalty of " +
      "lambda 1 has the gradient of DPO + SFT, and R-DPO, whose length term is then zero, is DPO.",
    ],
    figures: [barFigure({
      title: "Exact match without and with SPO",
      x: { label: "method", unit: "name" },
      y: ACCURACY,
      groups: Object.values(BASE_METHODS),
      series: [["alone", ""], ["with SPO", " + SPO"]].map(([name, suffix]) => ({
        name,
        bars: Object.values(BASE_METHODS).map((label) => {
          const { mean, low, high } = of(
            rowOf(comparison, label + suffix),
            (run) => percent(run.final.exactMatch),
          );
          return { value: mean, low, high };
        }),
      })),
    })],
    tables: [
      resultTable("method", comparison.rows, [["(SFT before)", sft]]),
    ],
  };
}

/** A row per method, mean (lowest to highest). */
function resultTable(
  varies: string,
  rows: readonly Row[],
  before: readonly (readonly [string, readonly SftMeasures[]])[],
): ReportTable {
  const share = (values: readonly number[]) => withSpread(spreadOf(values.map(percent)), 1, " %");
  const nats = (values: readonly number[]) => withSpread(spreadOf(values), 2, "");
  return {
    headers: [
      varies,
      "exact match",
      "OOD mass",
      "chosen delta",
      "rejected delta",
      "reward accuracy",
    ],
    rows: [
      ...before.map(([label, sft]) => [
        label,
        share(sft.map(({ exactMatch }) => exactMatch)),
        share(sft.map(({ mass }) => mass.outOfDistributionMass)),
        ...["-", "-", "-"],
      ]),
      ...rows.map(({ label, results }) => {
        const values = (pick: (run: RunResult["final"]) => number) => results.map(({ final }) => pick(final));
        return [
          label,
          share(values(({ exactMatch }) => exactMatch)),
          share(values(({ mass }) => mass.outOfDistributionMass)),
          nats(values(({ pairs }) => pairs.chosenDelta)),
          nats(values(({ pairs }) => pairs.rejectedDelta)),
          share(values(({ pairs }) => pairs.rewardAccuracy!)),
        ];
      }),
    ],
  };
}

/** What the numbers say about the claim, computed from them. */
function verdictSection({ comparison, sft }: StudyResult): ReportSection {
  const before = spreadOf(sft.map(({ exactMatch }) => percent(exactMatch))).mean;
  const methods = Object.values(BASE_METHODS).map((label) => {
    const [base, spo] = [rowOf(comparison, label), rowOf(comparison, `${label} + SPO`)];
    const accuracy = (row: Row) => of(row, ({ final }) => percent(final.exactMatch)).mean;
    const reward = (row: Row) => of(row, ({ final }) => percent(final.pairs.rewardAccuracy!)).mean;
    const lost = before - accuracy(base);
    return { label, lost, wonBack: accuracy(spo) - accuracy(base), reward: reward(spo) - reward(base) };
  });
  const losers = methods.filter(({ lost }) => lost >= 5);
  const wonBack = losers.length > 0
    ? spreadOf(losers.map(({ wonBack, lost }) => percent(wonBack / lost))).mean
    : undefined;
  const worst = methods.reduce((a, b) => (b.reward < a.reward ? b : a));
  return {
    title: "What is lost and won back",
    paragraphs: [
      losers.length === 0
        ? "No base method loses 5 points or more of exact match against SFT."
        : `${losers.length} of ${methods.length} base methods lose 5 points or more of exact match against SFT ` +
          `(${losers.map(({ label }) => label).join(", ")}); SPO wins back ${
            wonBack!.toFixed(0)
          } % of their loss on average.`,
      `Reward accuracy with SPO minus that of the base method is lowest for ${worst.label}: ${
        signed(worst.reward, 1)
      } points.`,
    ],
    tables: [{
      headers: [
        "method",
        "lost against SFT",
        "won back by SPO",
        "share won back",
        "reward accuracy, SPO - base",
      ],
      rows: methods.map(({ label, lost, wonBack, reward }) => [
        label,
        lost.toFixed(1),
        wonBack.toFixed(1),
        lost >= 5 ? `${percent(wonBack / lost).toFixed(0)} %` : "-",
        signed(reward, 1),
      ]),
    }],
  };
}

function evolutionSection({ comparison }: StudyResult): ReportSection {
  const methods = Object.values(BASE_METHODS);
  const curves = (label: string): Figure =>
    lineFigure({
      title: `${label}: log-probabilities`,
      x: STEP,
      y: LOGP,
      series: [["", false], [" + SPO", true]].flatMap(([suffix, dashed]) =>
        ([["chosen", "chosen"], ["rejected", "rejected"], ["all corruptions", "variants"]] as const).map((
          [name, key],
          color,
        ) => ({
          name: dashed ? `${name}, with SPO` : name,
          color,
          dashed: dashed as boolean,
          points: evolution(rowOf(comparison, `${label}${suffix}`), (point) => point[key]),
        }))
      ),
    });
  const mass = (title: string, pick: (point: EvolutionPoint) => number): Figure =>
    lineFigure({
      title,
      x: STEP,
      y: { label: "probability mass", unit: "%", domain: [0, 100] },
      series: methods.flatMap((label, color) =>
        [["", false], [" + SPO", true]].map(([suffix, dashed]) => ({
          name: `${label}${suffix}`,
          color,
          dashed: dashed as boolean,
          points: evolution(rowOf(comparison, `${label}${suffix}`), (point) => percent(pick(point))),
        }))
      ),
    });
  return {
    title: "Probability evolution",
    paragraphs: [
      "How likely the answers to held-out problems are during training: the right chain, the corruption that the pair has, the " +
      "mean over all one-digit corruptions, and everything else (OOD mass). Dashed: with SPO. Bands: lowest to highest seed.",
    ],
    figures: [
      mass("Probability of answers that nobody wrote (OOD mass)", (point) => point.outOfDistributionMass),
      mass("Probability of the right chain", (point) => point.chosenMass),
      ...methods.map(curves),
    ],
  };
}

/** A number along the steps, mean and spread over the seeds. */
function evolution(row: Row, pick: (point: EvolutionPoint) => number) {
  return row.results[0].evolution.map(({ step }, index) => {
    const { mean, low, high } = spreadOf(row.results.map((run) => pick(run.evolution[index])));
    return { x: step, y: mean, ...(row.results.length > 1 ? { low, high } : {}) };
  });
}

function tokensSection({ comparison }: StudyResult): ReportSection {
  const labels = ["DPO", "DPO + SPO", "SimPO", "SimPO + SPO"];
  const rows = labels.map((label) => rowOf(comparison, label));
  const distances = rows[0].results[0].final.byDistance.map(({ distance }) => distance);
  return {
    title: "Where in the answer",
    paragraphs: [
      "Change of the chosen answer's tokens since SFT, by their distance from the one in which the rejected answer differs: " +
      "before it both answers have the same tokens, after it the same tokens follow another past.",
    ],
    figures: [barFigure({
      title: "Change of a token by its distance from the corrupted digit",
      x: { label: "distance from the corrupted digit", unit: "tokens" },
      y: { label: "change of its log-probability", unit: "nats" },
      groups: distances.map(String),
      series: rows.map((row) => ({
        name: row.label,
        bars: distances.map((_, index) => {
          const { mean, low, high } = of(row, ({ final }) => final.byDistance[index].delta);
          return { value: mean, low, high };
        }),
      })),
    })],
  };
}

function chesSection({ comparison, sft }: StudyResult): ReportSection {
  const [{ ches, seed }] = sft;
  const rows = ["DPO", "DPO + SPO"].map((label) => rowOf(comparison, label));
  const deltas = (row: Row) => row.results[0].final.trainingDeltas;
  return {
    title: "Similarity and displacement",
    paragraphs: [
      `CHES of ${ches.length} training pairs before preference training (how alike the model sees their two answers, ` +
      "normalised by lengths; arXiv 2410.08847) against the change of the chosen answer's log-probability after it, seed " +
      `${seed}. Spearman's rank correlation: ${
        rows.map((row) => `${row.label} ${signed(rankCorrelation(ches, deltas(row)), 2)}`).join(", ")
      }. The paper's claim is a negative one for DPO: the more alike, the more is displaced.`,
    ],
    figures: [scatterFigure({
      title: "CHES before against displacement after",
      x: { label: "CHES score, normalised by lengths", unit: "squared hidden units" },
      y: { label: "change of the chosen log-probability", unit: "nats" },
      series: rows.map((row) => ({
        name: row.label,
        points: ches.map((x, pair) => ({ x, y: deltas(row)[pair] })),
      })),
    })],
  };
}

function sensitivitySection(group: GroupResult, { sft, settings }: StudyResult): ReportSection {
  const [first] = sft;
  const starts = group.title === "Initialization" ? first.earlier : [];
  const before = [...starts, { fraction: 1, ...first }].map((measures) =>
    [starts.length > 0 ? `${measures.fraction * 100} %, before` : "(SFT before)", [measures]] as const
  );
  return {
    title: group.title,
    paragraphs: [`By ${group.varies}; seed ${settings.seed}, the rest as in the comparison.`],
    figures: [sensitivityFigure(group)],
    tables: [resultTable(group.varies, group.rows, before)],
  };
}

function sensitivityFigure({ title, varies, scale, rows }: GroupResult): Figure {
  const accuracy = (row: Row) => percent(row.results[0].final.exactMatch);
  const placed = rows.flatMap((row) => (row.at ? [{ ...row.at, y: accuracy(row) }] : []));
  const names = [...new Set(placed.map(({ series }) => series))];
  const caption = `Exact match by ${title.toLowerCase()}`;
  if (scale === "log") {
    return lineFigure({
      title: caption,
      x: { label: title.toLowerCase(), unit: "no unit", scale },
      y: ACCURACY,
      series: names.map((name) => ({
        name,
        // What lies below another line is seen through its gaps.
        dashed: name === "DPO + SFT",
        points: placed.filter(({ series }) => series === name).map(({ value, y }) => ({ x: value, y })),
      })),
    });
  }
  const groups = placed.length > 0
    ? [...new Set(placed.map(({ value }) => String(value)))]
    : rows.map(({ label, short }) => short ?? label);
  const bars = placed.length > 0
    ? names.map((name) => ({
      name,
      bars: placed.filter(({ series }) => series === name).map(({ y }) => ({ value: y })),
    }))
    : [{ name: "exact match", bars: rows.map((row) => ({ value: accuracy(row) })) }];
  return barFigure({
    title: caption,
    x: {
      label: varies,
      unit: title === "Initialization" ? "%" : title === "Edit distance" ? "digits" : "name",
    },
    y: ACCURACY,
    groups,
    series: bars,
  });
}

function rowOf({ rows }: GroupResult, label: string): Row {
  const row = rows.find((row) => row.label === label);
  if (!row) throw new RangeError(`Cannot report ${label}: expected a row of the comparison, found none`);
  return row;
}

function of(row: Row, pick: (run: RunResult) => number): Spread {
  return spreadOf(row.results.map(pick));
}

function withSpread({ mean, low, high }: Spread, digits: number, unit: string): string {
  const text = `${mean.toFixed(digits)}${unit}`;
  return low === high ? text : `${text} (${low.toFixed(digits)} to ${high.toFixed(digits)})`;
}

function signed(value: number, digits: number): string {
  return `${value < 0 ? "" : "+"}${value.toFixed(digits)}`;
}
