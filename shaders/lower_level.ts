/**
 * The penalty on the lower level of a bilevel problem that has a pass of its own.
 * @module
 */
import { input, type Kernel, output } from "./kernel.ts";
import { SPO_STATE } from "./pair_loss.ts";
import { PENALTIES, type PenaltyName, vStarUpdate } from "./spo_fragments.ts";
import { wgsl } from "./wgsl.ts";

/** lambda phi(G - v*) of a G that has a pass of its own. */
export const spoPenalty: Kernel<{ penalty: PenaltyName }> = {
  name: "spo_penalty",
  doc:
    `G = sum of lower over the step's micro-batches; loss = lambda phi(G - v*) with the last of them, slope = lambda
    phi'. metrics[loss_metric] += loss; metrics[lower_metric] = G, metrics[gap_metric] = G - v*,
    metrics[lambda_metric] = lambda. state: see SPO_STATE; v* and the dual lambda move on with the last micro-batch.
    lower, loss, slope [1]. One invocation.`,
  build: ({ penalty }) => ({
    bindings: {
      lower: input("f32"),
      loss: output("f32"),
      slope: output("f32"),
      metrics: output("f32"),
      state: output("f32"),
    },
    params: {
      epsilon: "f32",
      lambda: "f32",
      dual_rate: "f32",
      v_star: "f32",
      v_star_steps: "f32",
      loss_metric: "u32",
      lower_metric: "u32",
      gap_metric: "u32",
      lambda_metric: "u32",
      is_first: "u32",
      is_last: "u32",
    },
    workgroupSize: [1, 1],
    body: wgsl`
var lower_level = lower[0];
if (p.is_first == 0u) { lower_level += state[${SPO_STATE.lowerLevel}]; }
state[${SPO_STATE.lowerLevel}] = lower_level;
let lambda = select(p.lambda, state[${SPO_STATE.lambda}], p.lambda < 0.0);
var phi = 0.0;
var d_phi = 0.0;
var gap = 0.0;
if (p.is_last != 0u) {
  ${vStarUpdate(SPO_STATE)}
}
${PENALTIES[penalty]}
slope[0] = lambda * d_phi;
loss[0] = 0.0;
if (p.is_last != 0u) {
  loss[0] = lambda * phi;
  metrics[p.loss_metric] += lambda * phi;
  metrics[p.lower_metric] = lower_level;
  metrics[p.gap_metric] = gap;
  metrics[p.lambda_metric] = lambda;
  if (p.dual_rate > 0.0) { state[${SPO_STATE.lambda}] = max(0.0, lambda + p.dual_rate * (gap - p.epsilon)); }
}`,
  }),
};
