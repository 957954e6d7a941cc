/**
 * The centered hidden embedding similarity of two completions of one prompt (CHES; arXiv 2410.08847, Definition 2).
 * @module
 */
import { input, type Kernel, output } from "./kernel.ts";
import { LINEAR_WORKGROUP, rowSum } from "./lib.ts";
import { REDUCE_LANES } from "./reduce.ts";
import { wgsl } from "./wgsl.ts";

/** Scores of pairs, from the hidden states that their completions' tokens are predicted from. */
export const chesScores: Kernel<Record<string, never>> = {
  name: "ches_scores",
  doc: `S = sum over a completion's tokens of the hidden state that predicts the token; n tokens.
    scores[pair] = <S_w, S_l> - |S_w|^2; normalized[pair] = <S_w, S_l> / (n_w n_l) - |S_w|^2 / n_w^2.
    hidden [R, C]; offsets [2P + 1]: rows of the chosen completions, then of the rejected; scores,
    normalized [P].
    A workgroup owns a pair, a lane every 64th column.`,
  build: () => ({
    bindings: {
      hidden: input("f32"),
      offsets: input("u32"),
      scores: output("f32"),
      normalized: output("f32"),
    },
    params: { pairs: "u32", columns: "u32" },
    workgroupSize: [REDUCE_LANES, 1],
    workgroupBytes: REDUCE_LANES * 4,
    declarations: `${rowSum(REDUCE_LANES)}
fn column_sum(sequence: u32, column: u32) -> f32 {
  var total = 0.0;
  for (var r = offsets[sequence]; r < offsets[sequence + 1u]; r++) { total += hidden[r * p.columns + column]; }
  return total;
}`,
    body: wgsl`
let workgroup = ${LINEAR_WORKGROUP};
let pair = min(workgroup, p.pairs - 1u);
var product = 0.0;
var square = 0.0;
for (var column = local_id.x; column < p.columns; column += ${REDUCE_LANES}u) {
  let chosen = column_sum(pair, column);
  product += chosen * column_sum(p.pairs + pair, column);
  square += chosen * chosen;
}
let dot = row_sum(product, local_id.x);
let norm = row_sum(square, local_id.x);
if (local_id.x == 0u && workgroup < p.pairs) {
  let n_w = f32(offsets[pair + 1u] - offsets[pair]);
  let n_l = f32(offsets[p.pairs + pair + 1u] - offsets[p.pairs + pair]);
  scores[pair] = dot - norm;
  normalized[pair] = dot / (n_w * n_l) - norm / (n_w * n_w);
}`,
  }),
};
