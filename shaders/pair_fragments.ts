/**
 * What heads of the pairwise kernel share: parts that look at the whole batch, and fragments of several losses.
 * @module
 */

/**
 * What a head computes over the whole batch before its pairs. Its fragment runs in uniform control flow with `lane`;
 * `each(pair)` loads a pair (s_w, s_l, ref_w, ref_l, n_w, n_l), `row_sum(x, lane)` adds over the lanes. It sets the numbers named in `shares`, which the
 * fragment of the pair then sees, and may change `memory_0`.., which last from step to step (0 at first).
 */
export interface BatchPart {
  readonly shares: readonly string[];
  /** Floats that last from step to step. */
  readonly memory: number;
  /** Floats a pair in `sorted`, which pairs may read after this part. */
  readonly sorted: number;
  readonly wgsl: string;
}

/** Least standard deviation of AlphaDPO's margins, in nats a token: below it they are rounding, as at the first step. */
export const ALPHADPO_LEAST_STD = 1e-3;

/** Least dynamic beta of beta-DPO. */
export const BETA_DPO_LEAST_BETA = 1e-3;

/** Weight of the past in AlphaDPO's and beta-DPO's moving means. */
export const BATCH_DECAY = 0.9;

/** Least 1 - p of ORPO's odds, where p is 1 to f32 rounding. */
export const ORPO_LEAST_REST = 1e-8;

export const SMOOTHED_LOGISTIC = `
value = -(1.0 - label_smoothing) * log_sigmoid(z) - label_smoothing * log_sigmoid(-z);`;

/** Slope of the smoothed logistic by z: sigmoid(z) - (1 - e), without cancellation for large z. */
export const SMOOTHED_SLOPE = "label_smoothing - sigmoid(-z)";

/** A moving mean over steps that starts with the first value; `memory_0` counts the steps. */
export const moving = (memory: string, value: string) =>
  `${memory} = select(${BATCH_DECAY} * ${memory} + ${
    (1 - BATCH_DECAY).toFixed(1)
  } * ${value}, ${value}, memory_0 == 0.0);`;

/**
 * Ranks each of the keys in the batch by counting, ties in order. In `sorted` each has three floats a pair: itself, the
 * keys in ascending order, and its own place among them. The loop over the others starts at the lane: lavapipe writes a
 * uniform bound into the code of a loop that starts at a constant, and compiles that code anew at every dispatch.
 */
export const sortBatch = (keys: readonly string[]): BatchPart => ({
  shares: [],
  memory: 0,
  sorted: 3 * keys.length,
  wgsl: `
for (var pair = lane; pair < p.pairs; pair += LANES) {
  let it = each(pair);
  ${keys.map((key, k) => `sorted[sorted_first + ${3 * k}u * p.pairs + pair] = ${key};`).join("\n  ")}
}
storageBarrier();
workgroupBarrier();
for (var pair = lane; pair < p.pairs; pair += LANES) {
  for (var key = 0u; key < ${keys.length}u; key++) {
    let keys = sorted_first + 3u * key * p.pairs;
    let mine = sorted[keys + pair];
    var rank = 0u;
    for (var turn = lane; turn < lane + p.pairs; turn++) {
      let other = turn - lane;
      let theirs = sorted[keys + other];
      rank += select(0u, 1u, theirs < mine || (theirs == mine && other < pair));
    }
    sorted[keys + p.pairs + rank] = mine;
    sorted[keys + 2u * p.pairs + pair] = f32(rank);
  }
}`,
});

/** The key `of` that is at the place of the pair's key `at`. */
export const matched = (of: number, at: number) =>
  `sorted[sorted_first + ${3 * of + 1}u * p.pairs + u32(sorted[sorted_first + ${
    3 * at + 2
  }u * p.pairs + pair])]`;
