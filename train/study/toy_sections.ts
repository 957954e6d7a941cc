/**
 * The probes that need no language model, as sections of the report.
 * @module
 */
import { barFigure } from "../report/bar_figure.ts";
import { lineFigure } from "../report/line_figure.ts";
import type { ReportSection } from "../report/page.ts";
import { type GeometryLoss, trainHidden } from "./geometry.ts";
import { squeeze, type SqueezingResult } from "./squeezing.ts";

/** Of the geometry's trainings. */
const STEPS = 600;
const LAMBDAS = [0, 0.05, 0.2, 1];
const LOSSES: Readonly<Record<GeometryLoss, string>> = { dpo: "DPO", simpo: "SimPO" };

/** @returns one section a probe */
export function toySections(): ReportSection[] {
  return [squeezingSection(), geometrySection()];
}

function squeezingSection(): ReportSection {
  const results = (["peak", "valley"] as const).flatMap((place) =>
    [0, 1].map((lambda) => squeeze(place, lambda))
  );
  const answers = [["rejected", "rejected"], ["chosen", "chosen"], ["most likely", "mostLikely"], [
    "all others",
    "others",
  ]] as const;
  const label = ({ place, lambda }: SqueezingResult) => `${place}, lambda ${lambda}`;
  const shown = (value: number) => (value < 1e-3 ? value.toExponential(1) : value.toFixed(3));
  return {
    title: "Toy: squeezing",
    paragraphs: [
      "One step of descent pushes one answer of a softmax over 50 down (arXiv 2407.10490), a likely one (peak) or the least " +
      "likely one (valley). What it gives up goes to the most likely answer, and the chosen one, of which nothing was said, " +
      "loses in both. With lambda 1, SPO's linear penalty, the chosen one is asked for in the same step.",
    ],
    figures: [barFigure({
      title: "Probability after one step",
      x: { label: "place of the rejected answer, and lambda", unit: "setting" },
      y: { label: "probability", unit: "%", domain: [0, 100] },
      groups: results.map(label),
      series: answers.map(([name, key]) => ({
        name,
        bars: results.map((result) => ({ value: 100 * result[key][1] })),
      })),
    })],
    tables: [{
      headers: ["setting", ...answers.map(([name]) => `${name}: before, after`)],
      rows: results.map((
        result,
      ) => [label(result), ...answers.map(([, key]) => result[key].map(shown).join(", "))]),
    }],
  };
}

function geometrySection(): ReportSection {
  const runs = (Object.keys(LOSSES) as GeometryLoss[]).map((loss) => ({
    loss,
    byLambda: LAMBDAS.map((lambda) => ({ lambda, points: trainHidden(loss, { lambda, steps: STEPS }) })),
  }));
  const tokens = ["chosen", "rejected", "third"] as const;
  return {
    title: "Toy: embedding geometry",
    paragraphs: [
      "A hidden state is trained under frozen output embeddings; those of chosen and rejected have a cosine of 0.95, a third " +
      "token's lies along their difference (arXiv 2410.08847). The loss alone orders chosen above rejected and makes the third " +
      "token the most likely one; SPO's penalty prevents it.",
    ],
    figures: runs.map(({ loss, byLambda }) =>
      lineFigure({
        title: `${LOSSES[loss]}: probability of three tokens`,
        x: { label: "training step", unit: "steps" },
        y: { label: "probability", unit: "%", domain: [0, 100] },
        series: byLambda.filter(({ lambda }) => lambda === 0 || lambda === 0.2).flatMap((
          { lambda, points },
        ) =>
          tokens.map((token, color) => ({
            name: lambda === 0 ? token : `${token}, lambda ${lambda}`,
            color,
            dashed: lambda !== 0,
            points: points.filter(({ step }) => step % 10 === 0).map((point) => ({
              x: point.step,
              y: 100 * point[token],
            })),
          }))
        ),
      })
    ),
    tables: [{
      headers: ["loss", "lambda", ...tokens, "chosen above rejected", "most likely"],
      rows: runs.flatMap(({ loss, byLambda }) =>
        byLambda.map(({ lambda, points }) => {
          const last = points[points.length - 1];
          const most = tokens.reduce((a, b) => (last[b] > last[a] ? b : a));
          return [
            LOSSES[loss],
            String(lambda),
            ...tokens.map((token) => last[token].toFixed(3)),
            last.chosen > last.rejected ? "yes" : "no",
            most,
          ];
        })
      ),
    }],
  };
}
