/**
 * A run on labelled answers: train, evaluate, save.
 * @module
 */
import { resolveUnpaired } from "./config.ts";
import type { EncodedExample } from "./data/encode.ts";
import { ConfigError } from "./errors.ts";
import type { PairEvaluation } from "./evaluate.ts";
import { unpairedObjective } from "./objectives/kto.ts";
import { completionLogps } from "./reference.ts";
import { heldOutOf, liveReferenceOf, type PreparedRun, startsAtReference, trainOptions } from "./run.ts";
import {
  formatResults,
  type PhaseResult,
  saveToRun,
  type Session,
  trainPhase,
  withProgress,
} from "./session.ts";

/** Log-probs of answers under policy and reference, in nats. */
interface Scores {
  readonly policy: ArrayLike<number>;
  readonly reference: ArrayLike<number>;
}

/**
 * Trains a prepared run on its examples and saves the model.
 *
 * @param session the run; model and metrics go to its folder
 * @param prepared with `examples` and `evalExamples`
 * @returns results before and after
 * @throws {RunStoppedError} when it was stopped
 */
export async function runUnpaired(session: Session, prepared: PreparedRun): Promise<PhaseResult[]> {
  const { config, loaded: { model, tokenizer }, examples = [], evalExamples = [] } = prepared;
  const loss = resolveUnpaired(config)!;
  const { beta } = loss.options;
  if (config.evalSteps !== undefined && loss.needsKl && evalExamples.length < 2) {
    throw new ConfigError(
      `Cannot use --eval-steps: expected at least 2 held-out answers with ${config.loss}, whose KL estimate pairs a ` +
        `prompt with another's answer, found ${evalExamples.length}`,
    );
  }
  using live = liveReferenceOf(prepared);
  const score = (label: string, of: typeof model) =>
    withProgress(session, label, (onProgress) => completionLogps(of, evalExamples, { onProgress }));
  const isReference = startsAtReference(prepared);
  const reference = await score("evaluation before", live.model);
  const start = isReference ? reference : await score("evaluation before", model);
  using objective = unpairedObjective(model, {
    examples,
    reference: live,
    loss,
    startsAtReference: isReference,
  });
  await trainPhase(session, {
    ...{ name: config.loss, objective, train: trainOptions(config, prepared.parts) },
    ...heldOutOf(config, () => unpairedObjective(model, { examples: evalExamples, reference: live, loss })),
  });
  await saveToRun(session, model, { name: "model", tokenizer, maxShardGb: config.maxShardGb });
  const after = await score("evaluation after", model);
  const evaluate = (policy: ArrayLike<number>) => compareExamples(evalExamples, { policy, reference }, beta);
  const results: PhaseResult[] = [
    { phase: "before", isReference, evaluation: evaluate(start) },
    { phase: "after", isReference: false, evaluation: evaluate(after) },
  ];
  session.log(
    `\n${evalExamples.length} ${config.evalData ? "held-out" : "training"} answers, ${config.loss}:`,
  );
  session.log(formatResults(results));
  return results;
}

/** Means over the answers of each label, 0 where there are none. */
function compareExamples(
  examples: readonly EncodedExample[],
  { policy, reference }: Scores,
  beta: number,
): PairEvaluation {
  const mean = (isGood: boolean, of: (index: number) => number) => {
    const values = examples.flatMap(({ desirable }, index) => (desirable === isGood ? [of(index)] : []));
    return values.reduce((total, value) => total + value, 0) / Math.max(1, values.length);
  };
  const delta = (index: number) => policy[index] - reference[index];
  const [chosenDelta, rejectedDelta] = [mean(true, delta), mean(false, delta)];
  return {
    ...{
      logpsChosen: mean(true, (index) => policy[index]),
      logpsRejected: mean(false, (index) => policy[index]),
    },
    ...{ chosenDelta, rejectedDelta, rewardMargin: beta * (chosenDelta - rejectedDelta) },
  };
}
