/**
 * Held-out evaluation: log-probs of pairs against a reference, and exact match of greedy answers.
 * @module
 */
import type { EncodedCompletion, EncodedPair } from "./data/encode.ts";
import { encodePrompt } from "./data/encode.ts";
import type { Tokenizer } from "./data/tokenizer.ts";
import { generate } from "./generate.ts";
import type { Model } from "./models/model.ts";
import { completionLogps, type ReferenceLogps, referenceLogps } from "./reference.ts";

/** Means over pairs; log-probs are sums over a completion, in nats. */
export interface PairEvaluation {
  /** Of the chosen answers. */
  readonly logpsChosen: number;
  /** Of the rejected answers. */
  readonly logpsRejected: number;
  /** Mean of log pi - log pi_ref. */
  readonly chosenDelta: number;
  /** The same for the rejected answers. */
  readonly rejectedDelta: number;
  /** beta times the mean of chosenDelta - rejectedDelta: DPO's implicit reward margin. */
  readonly rewardMargin: number;
  /** Share of pairs whose chosen answer gained more (or lost less) than the rejected one; none of answers without pairs. */
  readonly rewardAccuracy?: number;
}

/**
 * Compares a model with its reference on pairs.
 *
 * @param model the policy
 * @param pairs held-out pairs
 * @param options.reference the reference's log-probs of the same pairs
 * @param options.beta scales the margin
 * @returns means over the pairs
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../engine/gpu.ts";
 * import { createModel } from "./models/model.ts";
 * import { parseModelConfig } from "./models/config.ts";
 * import { ensureAdapter } from "./software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseModelConfig({ model_type: "llama", ...sizes }, { file: "example" });
 * using model = createModel(gpu, config, { trainable: false }); // all zero: ids are equally likely
 * const source = { file: "example" };
 * const chosen = { promptIds: [1, 2], completionIds: [3], source };
 * const rejected = { promptIds: [1, 2], completionIds: [4, 5], source };
 * const pairs = [{ chosen, rejected, source }];
 * const reference = { chosen: Float32Array.of(-9), rejected: Float32Array.of(-4) };
 * const evaluation = await evaluatePairs(model, pairs, { reference, beta: 0.1 });
 * assert(Math.abs(evaluation.logpsChosen + Math.log(8)) < 1e-5);
 * assert.equal(evaluation.rewardAccuracy, 1); // chosen gained more than rejected
 * ```
 */
export async function evaluatePairs(
  model: Model,
  pairs: readonly EncodedPair[],
  options: { reference: ReferenceLogps; beta: number; onProgress?: (done: number, total: number) => void },
): Promise<PairEvaluation> {
  return comparePairs(await referenceLogps(model, pairs, { onProgress: options.onProgress }), options);
}

/**
 * The same from log-probs that are known already: with policy = reference, the values before training.
 *
 * @param policy summed log-probs of P pairs
 * @param options.reference of the same pairs
 * @param options.beta scales the margin
 */
export function comparePairs(
  policy: ReferenceLogps,
  { reference, beta }: { reference: ReferenceLogps; beta: number },
): PairEvaluation {
  const count = policy.chosen.length;
  const mean = (of: (pair: number) => number) =>
    Array.from({ length: count }, (_, pair) => of(pair)).reduce((total, value) => total + value, 0) / count;
  const chosenDelta = (pair: number) => policy.chosen[pair] - reference.chosen[pair];
  const rejectedDelta = (pair: number) => policy.rejected[pair] - reference.rejected[pair];
  const margin = (pair: number) => chosenDelta(pair) - rejectedDelta(pair);
  return {
    logpsChosen: mean((pair) => policy.chosen[pair]),
    logpsRejected: mean((pair) => policy.rejected[pair]),
    chosenDelta: mean(chosenDelta),
    rejectedDelta: mean(rejectedDelta),
    rewardMargin: beta * mean(margin),
    rewardAccuracy: mean((pair) => (margin(pair) > 0 ? 1 : 0)),
  };
}

/** A question with an exact checker. */
export interface ExactTask {
  /** Questions. */
  readonly prompts: readonly string[];
  /** Whether an output, special tokens included, is right. */
  readonly isCorrect: (prompt: string, output: string) => boolean;
  /** Length of the longest right answer. */
  readonly maxNewTokens: number;
}

/**
 * Share of prompts that greedy decoding answers exactly right.
 *
 * @param model the model
 * @param options.task prompts and their checker
 * @param options.tokenizer of the model
 * @param options.onProgress told how many of how many prompts are done
 * @returns 0 to 1
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openGpu } from "../engine/gpu.ts";
 * import { characterTokenizerFiles } from "./data/character_tokenizer.ts";
 * import { createTokenizer } from "./data/tokenizer.ts";
 * import { createModel } from "./models/model.ts";
 * import { parseModelConfig } from "./models/config.ts";
 * import { ensureAdapter } from "./software_driver.ts";
 *
 * await ensureAdapter();
 * using gpu = await openGpu();
 * const sizes = { vocab_size: 8, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 };
 * const config = parseModelConfig({ model_type: "llama", ...sizes }, { file: "example" });
 * using model = createModel(gpu, config, { trainable: false }); // all zero: ids are equally likely
 * const tokenizer = createTokenizer(characterTokenizerFiles("01+", { eos: "." }), { source: "generated" });
 * const task = {
 *   prompts: ["0+0", "0+1"],
 *   maxNewTokens: 1,
 *   isCorrect: (prompt: string, output: string) => output === (prompt === "0+0" ? "0" : "1"),
 * };
 * assert.equal(await exactMatch(model, { task, tokenizer }), 0.5); // of equal ids the first, "0", is taken
 * ```
 */
export async function exactMatch(
  model: Model,
  options: { task: ExactTask; tokenizer: Tokenizer; onProgress?: (done: number, total: number) => void },
): Promise<number> {
  const { task, tokenizer } = options;
  const { prompts } = task;
  const stopIds = tokenizer.eosTokenId === undefined ? [] : [tokenizer.eosTokenId];
  const ids = prompts.map((prompt) => encodePrompt(prompt, { tokenizer }));
  const outputs = await generate(model, ids, { maxNewTokens: task.maxNewTokens, stopIds });
  const right = outputs.filter((output, index) => task.isCorrect(prompts[index], tokenizer.decode(output)));
  options.onProgress?.(prompts.length, prompts.length);
  return right.length / prompts.length;
}

/**
 * Out-of-distribution mass: 1 - (probability of the chosen answer and all its known variants), mean over problems.
 * Needs a task that enumerates them.
 *
 * @param model the model
 * @param groups per problem: the chosen completion and every variant
 */
export async function outOfDistributionMass(
  model: Model,
  groups: readonly (readonly EncodedCompletion[])[],
): Promise<number> {
  const sums = await completionLogps(model, groups.flat());
  let at = 0;
  let mass = 0;
  for (const group of groups) {
    for (let index = 0; index < group.length; index++) mass += Math.exp(sums[at++]);
  }
  return 1 - mass / groups.length;
}
