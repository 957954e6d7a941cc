/**
 * The evaluation on preference records.
 * @module
 */
import { type EncodedPair, encodePairs } from "../data/encode.ts";
import { formatSkipped } from "../data/records.ts";
import { readPreferences } from "../data/preference_files.ts";
import { CheckpointError } from "../errors.ts";
import { checkModelOrAdapter } from "../models/load_model.ts";
import { architectureOf } from "../models/registry.ts";
import { type ReferenceLogps, referenceLogps } from "../reference.ts";
import { withProgress } from "../session.ts";
import { comparePreferences } from "./preferences.ts";
import { type EvaluationInput, openModel, type PreparedEvaluation } from "./input.ts";

/**
 * Reads preference records, and checks them and the reference.
 *
 * @param input model and settings
 * @throws {InputError} naming file and line or key
 */
export async function preparePreferences(input: EvaluationInput): Promise<PreparedEvaluation> {
  const { flags, tokenizer, maxLength, log } = input;
  const path = flags.data!;
  const { records, skipped } = await readPreferences(path);
  const { vocab: vocabSize } = architectureOf(input.modelConfig).dimensions;
  const { pairs, counts } = encodePairs(records.slice(0, flags.limit), {
    tokenizer,
    vocabSize,
    maxLength,
    overlong: flags.overlong,
  });
  log(
    `${path}: ${pairs.length} pairs (left out: ${formatSkipped(skipped)}; of the rest: ${
      formatSkipped({ ...counts })
    })`,
  );
  const reference = flags.reference === undefined
    ? undefined
    : await checkReference(flags.reference, { ...input, pair: pairs[0] });
  const { beta, dtype, overlong } = flags;
  return {
    settings: {
      maxLength,
      overlong,
      dtype,
      ...(reference === undefined ? {} : { reference: flags.reference, beta }),
    },
    async plan(gpu) {
      for (const of of [input, ...(reference ? [reference] : [])]) {
        using model = await openModel(gpu, { ...input, ...of });
        await referenceLogps(model, pairs, { maxTokens: flags.batchTokens });
      }
    },
    async run(gpu, hooks, onDetail) {
      const score = async (label: string, of: ScoredModel): Promise<ReferenceLogps> => {
        // One after the other: the two models never need memory at the same time.
        using model = await openModel(gpu, { ...input, ...of });
        return await withProgress(
          hooks,
          label,
          (onProgress) => referenceLogps(model, pairs, { maxTokens: flags.batchTokens, onProgress }),
        );
      };
      const policy = await score("model", input);
      const base = reference === undefined ? undefined : await score("reference", reference);
      for (const [index, pair] of pairs.entries()) await onDetail(detailOf(pair, index, { policy, base }));
      return comparePreferences(pairs, { policy, reference: base, beta });
    },
  };
}

/** Where a model is, and what it is. */
type ScoredModel = Pick<EvaluationInput, "folders" | "modelConfig">;

/** Log-probs of different tokens cannot be compared. */
async function checkReference(
  reference: string,
  { name, modelConfig, tokenizer, resolve, pair }: EvaluationInput & { pair: EncodedPair },
): Promise<ScoredModel> {
  const other = await checkModelOrAdapter(reference, { resolve });
  const [expected, found] = [modelConfig, other.config].map((config) =>
    architectureOf(config).dimensions.vocab
  );
  if (expected !== found) {
    throw new CheckpointError(
      `Cannot use ${reference} as the reference of ${name}: expected a vocabulary of ${expected}, found ${found}`,
    );
  }
  const text = tokenizer.decode([...pair.chosen.promptIds, ...pair.chosen.completionIds]);
  const [ids, otherIds] = [tokenizer, other.tokenizer].map((of) => of.encode(text).join());
  if (ids !== otherIds) {
    throw new CheckpointError(
      `Cannot use ${reference} as the reference of ${name}: expected the same tokenizer, found one that gives ` +
        "other ids for the first record",
    );
  }
  return { folders: other.folders, modelConfig: other.config };
}

function detailOf(
  pair: EncodedPair,
  index: number,
  { policy, base }: { policy: ReferenceLogps; base?: ReferenceLogps },
): Record<string, unknown> {
  const [logpsChosen, logpsRejected] = [policy.chosen[index], policy.rejected[index]];
  return {
    ...pair.source,
    logpsChosen,
    logpsRejected,
    tokensChosen: pair.chosen.completionIds.length,
    tokensRejected: pair.rejected.completionIds.length,
    right: logpsChosen > logpsRejected,
    ...(base
      ? { referenceLogpsChosen: base.chosen[index], referenceLogpsRejected: base.rejected[index] }
      : {}),
  };
}
