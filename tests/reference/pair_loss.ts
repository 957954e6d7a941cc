/**
 * Pairwise preference losses from summed completion log-probabilities, in plain f64: one loss or a weighted sum of them,
 * with f-divergences, margins, weights of the pairs and negative log-likelihoods. The losses are in `pair_heads.ts` and
 * `pair_batch.ts`.
 *
 * loss = sum over terms of weight [sum over pairs of w_p l_term / normalizer + nll NLL], where c and r of a term are
 * u(s - ref), ref = 0 without reference, and NLL = -sum s_w / chosenTokens, or with the prompts' tokens
 * -sum (s_w + s_prompt) / (chosenTokens + promptTokens).
 *
 * @module
 */
import { BATCH_HEADS, type BatchSettings } from "./pair_batch.ts";
import {
  type Divergence,
  type HeadInputs,
  HEADS,
  logOdds,
  type PairHead,
  type PairSettings,
  transform,
} from "./pair_heads.ts";
import { logSigmoid } from "./log_sigmoid.ts";
import { requireLengths } from "./shape.ts";

/** Tensors of a pairwise loss. Each is `[2P]`: all chosen first, then all rejected in the same order. */
export interface PairLossInputs {
  /** `[2P]` summed log-probabilities under the policy. */
  s: Float64Array;
  /** `[2P]` summed log-probabilities under the reference; losses without it use them for the displacement metrics alone. */
  ref: Float64Array;
  /** `[2P]` completion lengths in tokens. */
  lengths: ArrayLike<number>;
  /** `[P]` what a pair's reward margin must exceed. */
  margins?: ArrayLike<number>;
  /** `[P]` factors of the pairs' preference terms, no gradient. */
  weights?: ArrayLike<number>;
  /** `[P]` summed log-probabilities of the prompts' own tokens. */
  promptLogps?: Float64Array;
  /** `[2P]` sums over whole completions where `s` has weights (LD-DPO): of likelihoods and displacement; `s` by default. */
  plain?: Float64Array;
  /** `[2P]` those of the reference; there with `plain`. */
  plainRef?: Float64Array;
}

type Settings = PairSettings & BatchSettings;

/** One loss with its settings. A setting that a loss does not know cannot be given. */
export type TermKind = {
  [Loss in keyof Settings]: { loss: Loss; referenceFree?: boolean } & Settings[Loss] & Divergence;
}[keyof Settings];

/** A loss, or a weighted sum of losses. */
export type PairLossKind = TermKind | { terms: readonly (TermKind & { weight: number })[] };

/** Sizes and settings of a pairwise loss. */
export type PairLossDims = PairLossKind & {
  /** Pairs in this call. */
  P: number;
  /** Pairs of the whole batch: sums are divided by it, so that the parts of a batch add up to the whole. */
  normalizer: number;
  /** Chosen tokens of the whole batch, for likelihoods; those of this call by default. */
  chosenTokens?: number;
  /** Tokens behind promptLogps of the whole batch. */
  promptTokens?: number;
};

/** Means over the batch, by TRL's names, and the displacement panel. */
export interface PairMetrics {
  /** Mean reward of the chosen completions. */
  "rewards/chosen": number;
  /** Mean reward of the rejected completions. */
  "rewards/rejected": number;
  /** Mean of chosen minus rejected reward. */
  "rewards/margins": number;
  /** Share of pairs whose chosen reward is the larger. */
  "rewards/accuracies": number;
  /** Mean summed log-probability of the chosen completions. */
  "logps/chosen": number;
  /** Mean summed log-probability of the rejected completions. */
  "logps/rejected": number;
  /** Mean of s_w - ref_w. */
  "displacement/chosen_delta": number;
  /** Mean of s_l - ref_l. */
  "displacement/rejected_delta": number;
  /** Share of pairs with s_w < ref_w. */
  "displacement/fraction": number;
}

/** The numbers of one pair. */
export interface Pair {
  /** Log-probability sum, reference sum and length of the chosen completion. */
  chosen: { s: number; ref: number; n: number };
  /** The same for the rejected completion. */
  rejected: { s: number; ref: number; n: number };
}

/**
 * Loss of each pair, their sum over the normalizer, and metrics.
 *
 * @param inputs Sums, reference sums and lengths.
 * @param dims Sizes and settings.
 * @returns losses `[P]` (likelihoods spread over the pairs), the mean loss, and the metrics.
 * @throws {RangeError} When a length disagrees with the dimensions.
 */
export function forward(
  inputs: PairLossInputs,
  dims: PairLossDims,
): { losses: Float64Array; loss: number; metrics: PairMetrics } {
  const pairs = pairsOf(inputs, dims);
  const losses = new Float64Array(dims.P);
  for (const term of termsOf(dims)) {
    const { values } = evaluateTerm(inputs, pairs, { term, dims });
    values.forEach((value, p) => losses[p] += term.weight * value);
  }
  const loss = losses.reduce((sum, value) => sum + value, 0) / dims.normalizer;
  return { losses, loss, metrics: metricsOf(inputs, dims) };
}

/**
 * loss = sum over pairs of l(s_w, s_l) / normalizer, so dS holds each pair's two derivatives over the normalizer. Where
 * there are plain sums likelihoods are of those.
 *
 * @param inputs Sums, reference sums and lengths.
 * @param dims Sizes and settings.
 * @param upstream dLoss, 1 for the last op of a step.
 * @returns dS `[2P]`, laid out as s, where there are prompts dPromptLogps `[P]`, and where there are plain sums dPlain `[2P]`.
 * @throws {RangeError} When a length disagrees with the dimensions.
 */
export function backward(
  inputs: PairLossInputs,
  dims: PairLossDims,
  { dLoss }: { dLoss: number },
): { dS: Float64Array; dPromptLogps?: Float64Array; dPlain?: Float64Array } {
  const { P, normalizer } = dims;
  const dS = new Float64Array(2 * P);
  const dPromptLogps = new Float64Array(P);
  const dPlain = inputs.plain ? new Float64Array(2 * P) : dS;
  const pairs = pairsOf(inputs, dims);
  for (const term of termsOf(dims)) {
    const factor = dLoss * term.weight;
    const { heads, nll, hasPrompt, tokens } = evaluateTerm(inputs, pairs, { term, dims });
    heads.forEach((head, p) => {
      const w = inputs.weights?.[p] ?? 1;
      dS[p] += factor * w * head.dChosen / normalizer;
      dPlain[p] -= factor * nll / tokens;
      dS[P + p] += factor * w * head.dRejected / normalizer;
      if (hasPrompt) dPromptLogps[p] -= factor * nll / tokens;
    });
  }
  return { dS, ...(inputs.promptLogps ? { dPromptLogps } : {}), ...(inputs.plain ? { dPlain } : {}) };
}

/**
 * Loss and derivatives of one pair without likelihoods; for losses that look at one pair at a time.
 *
 * @param pair Numbers of the pair.
 * @param term Loss and settings.
 * @param offset The pair's margin.
 * @returns Loss and its derivatives by s_w and s_l.
 */
export function pairHead(pair: Pair, term: TermKind, offset = 0): PairHead {
  const kept = term.referenceFree ? 0 : 1;
  const won = transform(pair.chosen.s - kept * pair.chosen.ref, term);
  const lost = transform(pair.rejected.s - kept * pair.rejected.ref, term);
  const { chosen, rejected } = pair;
  const inputs = { c: won.value, r: lost.value, chosen, rejected, offset };
  const head = HEADS[term.loss as keyof PairSettings] as (inputs: HeadInputs, settings: unknown) => PairHead;
  const { loss, dChosen, dRejected } = head(inputs, term);
  return { loss, dChosen: dChosen * won.slope, dRejected: dRejected * lost.slope };
}

/** The terms of a loss; a loss alone has weight 1. */
export function termsOf(kind: PairLossKind): readonly (TermKind & { weight: number })[] {
  return "terms" in kind ? kind.terms : [{ weight: 1, ...kind }];
}

/** One term over all pairs: heads, the NLL's weight and tokens, and each pair's value. */
function evaluateTerm(
  inputs: PairLossInputs,
  pairs: readonly Pair[],
  { term, dims }: { term: TermKind; dims: PairLossDims },
): { heads: PairHead[]; nll: number; tokens: number; hasPrompt: boolean; values: number[] } {
  const offset = (p: number) => inputs.margins?.[p] ?? 0;
  const batch = (BATCH_HEADS as Record<string, unknown>)[term.loss] as
    | ((pairs: readonly (Pair & { offset: number })[], settings: unknown) => PairHead[])
    | undefined;
  const heads = batch
    ? batch(pairs.map((pair, p) => ({ ...pair, offset: offset(p) })), term)
    : pairs.map((pair, p) => pairHead(pair, term, offset(p)));
  const nll = term.loss === "cpo" ? term.cpoAlpha : term.loss === "orpo" || term.loss === "sft" ? 1 : 0;
  const hasPrompt = term.loss === "orpo" && inputs.promptLogps !== undefined;
  const tokens = chosenTokensOf(pairs, dims) + (hasPrompt ? dims.promptTokens! : 0);
  const values = heads.map(({ loss }, p) =>
    (inputs.weights?.[p] ?? 1) * loss +
    nll * nllOf(inputs, { p, hasPrompt }) * dims.normalizer / tokens
  );
  return { heads, nll, tokens, hasPrompt, values };
}

function nllOf(
  { s, plain = s, promptLogps }: PairLossInputs,
  { p, hasPrompt }: { p: number; hasPrompt: boolean },
): number {
  return -plain[p] - (hasPrompt ? promptLogps![p] : 0);
}

function chosenTokensOf(pairs: readonly Pair[], { chosenTokens }: PairLossDims): number {
  return chosenTokens ?? pairs.reduce((sum, { chosen }) => sum + chosen.n, 0);
}

/**
 * The metrics that depend on the terms: each one's own value where there are several, and those of likelihoods and odds.
 *
 * @param inputs Sums, reference sums and lengths.
 * @param dims Sizes and settings.
 * @returns By the names of the logs.
 */
export function termMetrics(inputs: PairLossInputs, dims: PairLossDims): Record<string, number> {
  const pairs = pairsOf(inputs, dims);
  const terms = termsOf(dims);
  const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
  const metrics: Record<string, number> = {};
  for (const term of terms) {
    const { values, hasPrompt, tokens, nll } = evaluateTerm(inputs, pairs, { term, dims });
    if (terms.length > 1) metrics[`loss/${term.loss}`] = sum(values) / dims.normalizer;
    if (nll || term.loss === "cpo") {
      metrics.nll_loss = sum(pairs.map((_, p) => nllOf(inputs, { p, hasPrompt }))) / tokens;
    }
    if (term.loss === "orpo") {
      const odds = pairs.map(logOdds);
      metrics.log_odds_ratio = sum(odds.map(logSigmoid)) / dims.normalizer;
      metrics.log_odds_chosen = sum(odds) / dims.normalizer;
    }
  }
  return metrics;
}

/**
 * Reads the pairs out of the `[2P]` tensors.
 *
 * @param inputs Sums, reference sums and lengths.
 * @param dims Number of pairs.
 * @returns `[P]` pairs.
 * @throws {RangeError} When a length disagrees with the dimensions or a completion is empty.
 */
export function pairsOf(inputs: PairLossInputs, { P }: { P: number }): Pair[] {
  const { s, ref, lengths, margins, weights, promptLogps, plain, plainRef } = inputs;
  requireLengths("pair_loss", {
    ...{ s: [s, 2 * P], ref: [ref, 2 * P], lengths: [lengths, 2 * P] },
    ...(margins ? { margins: [margins, P] } : {}),
    ...(weights ? { weights: [weights, P] } : {}),
    ...(promptLogps ? { promptLogps: [promptLogps, P] } : {}),
    ...(plain ? { plain: [plain, 2 * P], plainRef: [plainRef!, 2 * P] } : {}),
  });
  const at = (i: number) => {
    if (!(lengths[i] > 0)) {
      throw new RangeError(`Cannot score completion ${i}: expected at least 1 token, found ${lengths[i]}`);
    }
    return { s: s[i], ref: ref[i], n: lengths[i] };
  };
  return Array.from({ length: P }, (_, p) => ({ chosen: at(p), rejected: at(P + p) }));
}

/**
 * The pairs with sums over whole completions, for everything that is about their likelihood and not about preference.
 *
 * @param inputs Sums, reference sums and lengths.
 * @param dims Number of pairs.
 * @returns `[P]` pairs.
 */
export function wholePairsOf(inputs: PairLossInputs, { P }: { P: number }): Pair[] {
  const { s, ref, plain = s, plainRef = ref } = inputs;
  return pairsOf({ ...inputs, s: plain, ref: plainRef }, { P });
}

/** Losses whose rewards are averaged log-probs, and those whose rewards are summed log-probs, as TRL logs them. */
const AVERAGED = ["simpo", "alphadpo", "orpo"];
const SUMMED = ["cpo"];

/** Implicit rewards of the first term that has any: beta (s - ref), or by the policy alone. */
function rewardsOf({ chosen, rejected }: Pair, kind: PairLossKind): { won: number; lost: number } {
  const term = termsOf(kind).find(({ loss }) => loss !== "sft");
  if (!term || !("beta" in term)) return { won: 0, lost: 0 };
  const reward = ({ s, ref, n }: Pair["chosen"]) => {
    if (term.loss === "alphapo") return (1 - Math.exp(Math.min(40, -term.alpha * s / n))) / term.alpha;
    if (AVERAGED.includes(term.loss)) return s / n;
    return SUMMED.includes(term.loss) || term.referenceFree ? s : s - ref;
  };
  return { won: term.beta * reward(chosen), lost: term.beta * reward(rejected) };
}

function metricsOf(inputs: PairLossInputs, dims: PairLossDims): PairMetrics {
  const [pairs, whole] = [pairsOf(inputs, dims), wholePairsOf(inputs, dims)];
  const mean = (read: (pair: Pair) => number, of = pairs) =>
    of.reduce((sum, pair) => sum + read(pair), 0) / dims.normalizer;
  const won = (pair: Pair) => rewardsOf(pair, dims).won;
  const lost = (pair: Pair) => rewardsOf(pair, dims).lost;
  const chosenDelta = ({ chosen }: Pair) => chosen.s - chosen.ref;
  return {
    "rewards/chosen": mean(won),
    "rewards/rejected": mean(lost),
    "rewards/margins": mean((pair) => won(pair) - lost(pair)),
    "rewards/accuracies": mean((pair) => won(pair) > lost(pair) ? 1 : 0),
    "logps/chosen": mean(({ chosen }) => chosen.s),
    "logps/rejected": mean(({ rejected }) => rejected.s),
    "displacement/chosen_delta": mean(chosenDelta, whole),
    "displacement/rejected_delta": mean(({ rejected }) => rejected.s - rejected.ref, whole),
    "displacement/fraction": mean((pair) => chosenDelta(pair) < 0 ? 1 : 0, whole),
  };
}
