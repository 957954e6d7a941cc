/**
 * Preference losses on pairs, and Stable Preference Optimization around them: from two summed log-probs a pair to the
 * loss, every metric and dL/dlogp, in one workgroup. One skeleton for every weighted sum of the heads of `pair_heads.ts`.
 * @module
 */
import { input, type Kernel, output } from "./kernel.ts";
import { LOG1M_EXP, LOG_F32, LOG_SIGMOID, rowSum } from "./lib.ts";
import { type DivergenceName, DIVERGENCES } from "./divergence.ts";
import { type BatchPart, headOf, type PairHeadChoice, type PairLossName } from "./pair_heads.ts";
import { METRICS_STRIDE, pairMetrics, summedPairMetrics, termMetric } from "./pair_metrics.ts";
import { PENALTIES, type PenaltyName, vStarUpdate } from "./spo_fragments.ts";
import { unroll, wgsl } from "./wgsl.ts";

export { type PenaltyName, V_STAR_DECAY } from "./spo_fragments.ts";

export type { DivergenceName, PairLossName };
export { GRAD_NORM_METRIC, LOSS_SCALE_METRIC, METRICS_STRIDE, pairMetrics } from "./pair_metrics.ts";

/** One term of the preference loss. */
export interface PairTermConstants {
  readonly loss: PairHeadChoice;
  /** Reverse KL where there is none. */
  readonly divergence?: DivergenceName;
  /** The loss takes the reference's log-probs to be 0; the displacement panel does not. */
  readonly referenceFree?: boolean;
}

/** What a batch may bring besides log-probs and lengths. */
export type PairExtra = "margins" | "weights" | "prompt_logps" | "plain_logps" | "plain_reference";

/** What a pair-loss pipeline is specialised on. */
export interface PairLossConstants {
  readonly terms: readonly PairTermConstants[];
  readonly penalty: PenaltyName;
  readonly extras: readonly PairExtra[];
}

/** Terms that a sum may have. */
export const MAX_TERMS = 8;

/** Floats that a term may carry from step to step. */
const TERM_MEMORY = 3;

/** Numbers that SPO and batch-coupled losses carry from step to step on the GPU; each term has its part of `memory`. */
export const SPO_STATE = {
  vStar: 0,
  steps: 1,
  lambda: 2,
  lowerLevel: 3,
  memory: 4,
  size: 4 + TERM_MEMORY * MAX_TERMS,
} as const;

/** Lanes of the one workgroup; each takes every 64th pair. */
const LANES = 64;

/** Numbers that a term's kernel takes: its weight and the options of its head. */
export function termOptions({ loss, divergence }: PairTermConstants): readonly string[] {
  return [...headOf(loss).options, ...(divergence === "alpha_divergence" ? ["divergence_alpha"] : [])];
}

/** Floats a pair that the terms' sorted values take. */
export function sortedPerPair(terms: readonly PairTermConstants[]): number {
  return terms.reduce((total, { loss }) => total + (headOf(loss).batch?.sorted ?? 0), 0);
}

/** Loss, metrics and gradients of one micro-batch of pairs. */
export const pairLoss: Kernel<PairLossConstants> = {
  name: "pair_loss",
  doc:
    `l_pref = sum over terms of weight l_term (+ weight nll NLL(chosen), a token mean over the whole batch);
    F = sum over pairs (l_pref + rho max(0, ref_w - s_w + margin) / n_w) / pairs_in_batch;
    G = sum over pairs (-s_w / n_w) / pairs_in_batch; loss = F + lambda phi(G - v*) (arXiv 2507.07723, as written in
    the documentation of SPO). d_logps = d loss / d logps.
    logps, reference, lengths, d_logps [2P]: the chosen, then the rejected; margins, weights, prompt_logps, d_prompt [P];
    sorted: scratch of losses that sort the batch; loss [1]; state: see SPO_STATE.
    plain_logps, plain_reference, d_plain [2P]: sums over whole answers where logps and reference weigh tokens; NLL, G,
    the term of rho and the displacement metrics are of those then.
    A batch may come in several micro-batches: F and G add up, phi is applied with the last.`,
  build(constants) {
    const { terms, extras } = constants;
    const summed = summedPairMetrics(terms).length;
    const hasPrompt = extras.includes("prompt_logps");
    const hasPlain = extras.includes("plain_logps");
    return {
      bindings: {
        logps: input("f32"),
        reference: input("f32"),
        lengths: input("f32"),
        ...Object.fromEntries(extras.map((name) => [name, input("f32")])),
        loss: output("f32"),
        d_logps: output("f32"),
        ...(hasPrompt ? { d_prompt: output("f32") } : {}),
        ...(hasPlain ? { d_plain: output("f32") } : {}),
        ...(sortedPerPair(terms) > 0 ? { sorted: output("f32") } : {}),
        metrics: output("f32"),
        state: output("f32"),
      },
      params: {
        pairs: "u32",
        inverse_pairs: "f32",
        chosen_scale: "f32",
        sequence_scale: "f32",
        ...Object.fromEntries(
          terms.flatMap((term, index) =>
            ["weight", ...termOptions(term)].map((name) => [`t${index}_${name}`, "f32" as const])
          ),
        ),
        rho: "f32",
        margin: "f32",
        epsilon: "f32",
        lambda: "f32",
        dual_rate: "f32",
        v_star: "f32",
        v_star_steps: "f32",
        metrics_row: "u32",
        is_first: "u32",
        is_last: "u32",
      },
      workgroupSize: [LANES, 1],
      workgroupBytes: LANES * summed * 4 + LANES * 4 + 4 + 4 * batchGlobals(terms).length,
      declarations: declarations(constants, summed),
      body: body(constants, summed),
    };
  },
};

/** The numbers that batch parts share with their pairs, as workgroup variables. */
function batchGlobals(terms: readonly PairTermConstants[]): string[] {
  return terms.flatMap(({ loss }, index) =>
    (headOf(loss).batch?.shares ?? []).map((name) => `t${index}_${name}`)
  );
}

/** The term whose rewards are the metrics': the first that has any. */
function rewardTerm(terms: readonly PairTermConstants[]): number {
  return terms.findIndex(({ loss }) => headOf(loss).hasRewards !== false);
}

function declarations(constants: PairLossConstants, summed: number): string {
  const { terms, extras } = constants;
  const hasBatch = terms.some(({ loss }) => headOf(loss).batch?.memory);
  const optional = (name: PairExtra, otherwise: string, at = "pair") =>
    extras.includes(name) ? `${name}[${at}]` : otherwise;
  // What the derivatives by the whole chosen answer's sum are added to.
  const whole = extras.includes("plain_logps") ? "total_plain" : "total_w";
  return `${LOG_F32}${LOG_SIGMOID}${LOG1M_EXP}${hasBatch ? rowSum(LANES) : ""}
const LANES = ${LANES}u;
struct Sides { s_w: f32, s_l: f32, ref_w: f32, ref_l: f32, n_w: f32, n_l: f32 }
struct Pair { d_w: f32, d_l: f32, d_prompt: f32, d_plain: f32, n_w: f32, numbers: array<f32, ${summed}> }
var<workgroup> lane_sums: array<array<f32, ${summed}>, ${LANES}>;
var<workgroup> lower_weight: f32;
${batchGlobals(terms).map((name) => `var<workgroup> ${name}: f32;`).join("\n")}
fn each(pair: u32) -> Sides {
  let other = p.pairs + pair;
  return Sides(logps[pair], logps[other], reference[pair], reference[other], lengths[pair], lengths[other]);
}
fn normalized_margin(it: Sides) -> f32 { return (it.s_w - it.ref_w) / it.n_w - (it.s_l - it.ref_l) / it.n_l; }
${[...new Set(terms.flatMap(({ divergence }) => divergence ?? []))].map(namedDivergence).join("\n")}
fn evaluate(pair: u32) -> Pair {
  let it = each(pair);
  let offset = ${optional("margins", "0.0")};
  let pair_weight = ${optional("weights", "1.0")};
  let s_w = it.s_w;
  let s_l = it.s_l;
  let n_w = it.n_w;
  let n_l = it.n_l;
  // The whole answers', where the sums above weigh tokens.
  let whole_w = ${optional("plain_logps", "s_w")};
  let whole_l = ${optional("plain_logps", "s_l", "p.pairs + pair")};
  let whole_ref_w = ${optional("plain_reference", "it.ref_w")};
  let whole_ref_l = ${optional("plain_reference", "it.ref_l", "p.pairs + pair")};
  let chosen_nll = -whole_w * p.chosen_scale;
  let sequence_nll = -(whole_w + ${optional("prompt_logps", "0.0")}) * p.sequence_scale;
  var total = 0.0;
  var total_w = 0.0;
  var total_l = 0.0;
  var total_prompt = 0.0;
  var total_plain = 0.0;
  var total_nll = 0.0;
  var reward_w = 0.0;
  var reward_l = 0.0;
  var log_odds = 0.0;
${terms.map((_, index) => `  var value_${index} = 0.0;`).join("\n")}
${terms.map((term, index) => termBlock(term, { index, terms, whole })).join("\n")}
  let shortfall = whole_ref_w - whole_w + p.margin;
  let improvement = max(0.0, shortfall) / n_w;
  let chosen_delta = whole_w - whole_ref_w;
  ${whole} -= select(0.0, p.rho / n_w, shortfall > 0.0);
  return Pair(total_w, total_l, total_prompt, total_plain, n_w, array<f32, ${summed}>(
    total + p.rho * improvement,
    total,
    reward_w,
    reward_l,
    select(0.0, 1.0, reward_w > reward_l),
    reward_w - reward_l,
    s_w,
    s_l,
    chosen_delta,
    whole_l - whole_ref_l,
    select(0.0, 1.0, chosen_delta < 0.0),
    -whole_w / n_w,
    improvement,
${summedPairMetrics(terms).slice(13).map((name) => `    ${extraMetric(name, terms)},`).join("\n")}
  ));
}`;
}

/** Functions of one module need names of their own. */
function namedDivergence(name: DivergenceName): string {
  return DIVERGENCES[name].replace("fn u(", `fn u_${name}(`);
}

/** Metrics beyond the fixed ones, in terms of evaluate's variables. */
function extraMetric(name: string, terms: readonly PairTermConstants[]): string {
  const term = terms.findIndex(({ loss }) => termMetric(loss) === name);
  if (term >= 0) return `value_${term}`;
  return { nll_loss: "total_nll", log_odds_ratio: "log_sigmoid(log_odds)", log_odds_chosen: "log_odds" }[
    name
  ]!;
}

/** One term: its head with its options under plain names, and what it adds to the sums. */
function termBlock(
  term: PairTermConstants,
  { index, terms, whole }: { index: number; terms: readonly PairTermConstants[]; whole: string },
): string {
  const { loss, divergence = "reverse_kl", referenceFree } = term;
  const head = headOf(loss);
  const reads = head.options.map((name) => `let ${name} = p.t${index}_${name};`);
  const shared = (head.batch?.shares ?? []).map((name) => `let ${name} = t${index}_${name};`);
  const sortedFirst = `let sorted_first = ${sortedPerPair(terms.slice(0, index))}u * p.pairs;`;
  const isTransformed = divergence !== "reverse_kl";
  const alpha = divergence === "alpha_divergence" ? `p.t${index}_divergence_alpha` : "0.0";
  const nll = head.nll ?? "chosen";
  const scale = head.options.includes("beta") ? "beta" : "1.0";
  return `  {
    let ref_w = ${referenceFree ? "0.0" : "it.ref_w"};
    let ref_l = ${referenceFree ? "0.0" : "it.ref_l"};
    ${[...reads, ...shared, ...(head.batch?.sorted ? [sortedFirst] : [])].join("\n    ")}
    ${
    isTransformed
      ? `let u_w = u_${divergence}(s_w - ref_w, ${alpha});
    let u_l = u_${divergence}(s_l - ref_l, ${alpha});
    let c = u_w.x;
    let r = u_l.x;`
      : `let c = s_w - ref_w;
    let r = s_l - ref_l;`
  }
    var value = 0.0;
    var d_w = 0.0;
    var d_l = 0.0;
    var nll = 0.0;
    ${
    rewardTerm(terms) === index
      ? `reward_w = ${scale} * (s_w - ref_w);\n    reward_l = ${scale} * (s_l - ref_l);`
      : "var reward_w = 0.0;\n    var reward_l = 0.0;"
  }
    {${head.wgsl}
    }
    ${isTransformed ? "d_w *= u_w.y;\n    d_l *= u_l.y;" : ""}
    let weight = p.t${index}_weight;
    value_${index} = pair_weight * value + nll * ${nll}_nll;
    total += weight * value_${index};
    total_w += weight * (pair_weight * d_w);
    ${whole} -= weight * nll * p.${nll}_scale;
    total_l += weight * pair_weight * d_l;
    ${head.nll === "sequence" ? "total_prompt -= weight * nll * p.sequence_scale;" : ""}
    ${head.nll ? `total_nll = ${nll}_nll;` : ""}
  }`;
}

/** What a term computes over the whole batch before its pairs. */
function batchBlock(
  { loss }: PairTermConstants,
  { index, terms }: { index: number; terms: readonly PairTermConstants[] },
): string {
  const head = headOf(loss);
  if (!head.batch) return "";
  const { shares, memory, sorted, wgsl: fragment }: BatchPart = head.batch;
  const at = (n: number) => `state[${SPO_STATE.memory + index * TERM_MEMORY + n}]`;
  const count = (n: number) => Array.from({ length: memory }, (_, i) => i).slice(0, n);
  return `{
  ${head.options.map((name) => `let ${name} = p.t${index}_${name};`).join("\n  ")}
  ${sorted ? `let sorted_first = ${sortedPerPair(terms.slice(0, index))}u * p.pairs;` : ""}
  ${count(memory).map((n) => `var memory_${n} = ${at(n)};`).join("\n  ")}
  ${shares.map((name) => `var ${name} = 0.0;`).join("\n  ")}
  ${fragment}
  // Every lane has read the state before it changes.
  workgroupBarrier();
  if (lane == 0u) {
    ${shares.map((name) => `t${index}_${name} = ${name};`).join("\n    ")}
    ${count(memory).map((n) => `${at(n)} = memory_${n};`).join("\n    ")}
  }
}`;
}

function body({ terms, penalty, extras }: PairLossConstants, summed: number): string {
  const names = pairMetrics(terms);
  const metric = (name: string) => `row + ${names.indexOf(name)}u`;
  return wgsl`
let lane = local_id.x;
let row = p.metrics_row * ${METRICS_STRIDE}u;
${terms.map((term, index) => batchBlock(term, { index, terms })).join("\n")}
storageBarrier();
workgroupBarrier();
var sums = array<f32, ${summed}>();
for (var pair = lane; pair < p.pairs; pair += LANES) {
  let numbers = evaluate(pair).numbers;
  ${unroll(summed, (n) => `sums[${n}] += numbers[${n}];`)}
}
${unroll(summed, (n) => `lane_sums[lane][${n}] = sums[${n}];`)}
workgroupBarrier();
if (lane < ${summed}u) {
  var total = 0.0;
  for (var other = 0u; other < LANES; other++) { total += lane_sums[other][lane]; }
  total *= p.inverse_pairs;
  lane_sums[0][lane] = total;
  if (p.is_first == 0u) { total += metrics[row + lane]; }
  metrics[row + lane] = total;
}
workgroupBarrier();
if (lane == 0u) {
  var lower_level = lane_sums[0][${names.indexOf("spo/lower_level")}];
  if (p.is_first == 0u) { lower_level += state[${SPO_STATE.lowerLevel}]; }
  state[${SPO_STATE.lowerLevel}] = lower_level;
  // lambda >= 0 is a schedule's; a negative one means the dual variable in the state.
  let lambda = select(p.lambda, state[${SPO_STATE.lambda}], p.lambda < 0.0);
  var phi = 0.0;
  var d_phi = 0.0;
  var gap = 0.0;
  if (p.is_last != 0u) {
    ${vStarUpdate(SPO_STATE)}
  }
  ${PENALTIES[penalty]}
  lower_weight = lambda * d_phi;
  var total = lane_sums[0][0];
  if (p.is_last != 0u) {
    total += lambda * phi;
    metrics[${metric("loss")}] += lambda * phi;
    metrics[${metric("spo/gap")}] = gap;
    metrics[${metric("spo/lambda")}] = lambda;
    if (p.dual_rate > 0.0) { state[${SPO_STATE.lambda}] = max(0.0, lambda + p.dual_rate * (gap - p.epsilon)); }
  }
  loss[0] = total;
}
workgroupBarrier();
for (var pair = lane; pair < p.pairs; pair += LANES) {
  let it = evaluate(pair);
#if ${extras.includes("plain_logps")}
  d_logps[pair] = it.d_w * p.inverse_pairs;
  d_plain[pair] = (it.d_plain - lower_weight / it.n_w) * p.inverse_pairs;
  d_plain[p.pairs + pair] = 0.0;
#else
  d_logps[pair] = (it.d_w - lower_weight / it.n_w) * p.inverse_pairs;
#endif
  d_logps[p.pairs + pair] = it.d_l * p.inverse_pairs;
  ${extras.includes("prompt_logps") ? "d_prompt[pair] = it.d_prompt * p.inverse_pairs;" : ""}
}`;
}
