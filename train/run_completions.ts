/**
 * A supervised run on completions: train, evaluate, save.
 * @module
 */
import { completionsSize } from "./data/batch.ts";
import type { EncodedCompletion } from "./data/encode.ts";
import type { Model } from "./models/model.ts";
import { sftObjective } from "./objective.ts";
import { completionLogps } from "./reference.ts";
import { heldOutOf, type PreparedRun, trainOptions } from "./run.ts";
import { saveToRun, type Session, trainPhase, withProgress } from "./session.ts";
import { formatTable } from "./table.ts";

/** Means over the tokens of held-out completions that are learnt. */
export interface CompletionEvaluation {
  /** Negative log-likelihood, in nats. */
  readonly loss: number;
  /** e to it. */
  readonly perplexity: number;
}

/** A row of the results of a supervised run. */
export interface SftResult {
  readonly phase: string;
  readonly evaluation: CompletionEvaluation;
}

/**
 * Trains a prepared run on its completions and saves the model.
 *
 * @param session the run; model and metrics go to its folder
 * @param prepared with `completions` and `evalCompletions`
 * @returns results before and after
 * @throws {RunStoppedError} when it was stopped
 */
export async function runCompletions(session: Session, prepared: PreparedRun): Promise<SftResult[]> {
  const { config, loaded: { model, tokenizer }, completions = [], evalCompletions = [], parts } = prepared;
  const evaluate = async (phase: string): Promise<SftResult> => {
    const evaluation = await withProgress(
      session,
      `evaluation ${phase}`,
      (onProgress) => evaluateCompletions(model, evalCompletions, { onProgress }),
    );
    return { phase, evaluation };
  };
  const before = await evaluate("before");
  using objective = sftObjective(model, completions);
  await trainPhase(session, {
    ...{ name: config.loss, objective, train: trainOptions(config, parts) },
    ...heldOutOf(config, () => sftObjective(model, evalCompletions)),
  });
  await saveToRun(session, model, { name: "model", tokenizer, maxShardGb: config.maxShardGb });
  const results = [before, await evaluate("after")];
  const kind = config.evalData ? "held-out" : "training";
  session.log(`\n${evalCompletions.length} ${kind} completions, ${config.loss}:`);
  session.log(formatTable(
    ["phase", "loss", "perplexity"],
    results.map(({ phase, evaluation: { loss, perplexity } }) => [
      phase,
      loss.toFixed(4),
      perplexity.toPrecision(5),
    ]),
  ));
  return results;
}

async function evaluateCompletions(
  model: Model,
  completions: readonly EncodedCompletion[],
  options: { onProgress: (done: number, total: number) => void },
): Promise<CompletionEvaluation> {
  const logps = await completionLogps(model, completions, options);
  const total = logps.reduce((sum, logp) => sum + logp, 0);
  const loss = -total / completionsSize(completions).labels;
  return { loss, perplexity: Math.exp(loss) };
}
