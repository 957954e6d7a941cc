import assert from "node:assert/strict";
import { z } from "zod";
import {
  checkPairLoss,
  definePairLoss,
  GradientError,
  PAIR_LOSSES,
  type PairHead,
  type PairSides,
} from "../../mod.ts";
import { pairMetrics } from "../../shaders/pair_metrics.ts";
import { gpuTest } from "../gpu.ts";

const EXPONENTIAL: PairHead = {
  options: ["beta"],
  readsReference: true,
  wgsl: "value = exp(-beta * (c - r)); d_w = -beta * value; d_l = -d_w;",
};

function define(head: PairHead, name = "exponential") {
  return definePairLoss({ name, head, options: z.strictObject({ beta: z.number().default(0.1) }) }).resolve(
    {},
  );
}

const exponential = ({ c, r }: PairSides) => Math.exp(-0.1 * (c - r));

gpuTest("a head of one's own computes value and slopes", async (gpu) => {
  const { gradients } = await checkPairLoss(gpu, define(EXPONENTIAL), exponential);
  assert.ok(gradients.logps < 1e-6, `${gradients.logps}`);
});

gpuTest("two heads of one name but other WGSL are two kernels", async (gpu) => {
  await checkPairLoss(gpu, define(EXPONENTIAL), exponential);
  const doubled = { ...EXPONENTIAL, wgsl: `${EXPONENTIAL.wgsl} value *= 2.0; d_w *= 2.0; d_l *= 2.0;` };
  await checkPairLoss(gpu, define(doubled), (pair) => 2 * exponential(pair));
});

gpuTest("a head without beta has plain log-ratios as rewards", async (gpu) => {
  const loss = definePairLoss({
    name: "square",
    head: { options: [], readsReference: true, wgsl: "value = c * c + r * r; d_w = 2.0 * c; d_l = 2.0 * r;" },
    options: z.strictObject({}),
  }).resolve({});
  assert.equal(loss.beta, 1);
  await checkPairLoss(gpu, loss, ({ c, r }) => c * c + r * r);
});

gpuTest("checkPairLoss sees lengths and log-probs, and finds wrong slopes and values", async (gpu) => {
  const simpo = PAIR_LOSSES.simpo.resolve({ beta: 2, gammaBetaRatio: 0.5 });
  const margin = ({ sW, sL, nW, nL }: PairSides) => 2 * (sW / nW - sL / nL) - 1;
  await checkPairLoss(gpu, simpo, (pair) => Math.log1p(Math.exp(-margin(pair))));
  const slopes = { ...EXPONENTIAL, wgsl: EXPONENTIAL.wgsl.replace("d_l = -d_w", "d_l = d_w") };
  await assert.rejects(checkPairLoss(gpu, define(slopes), exponential), /gradient of logps/);
  await assert.rejects(
    checkPairLoss(gpu, define(EXPONENTIAL), (pair) => exponential(pair) + 0.01),
    GradientError,
  );
});

Deno.test("a head of one's own goes by the loss's name, which must be new", () => {
  const { head } = define(EXPONENTIAL);
  const names = pairMetrics([...head.terms, ...PAIR_LOSSES.dpo.resolve({}).head.terms]);
  assert.ok(names.includes("loss/exponential") && names.includes("loss/dpo"), names.join(" "));
  assert.throws(() => define(EXPONENTIAL, "dpo"), /^TypeError: Cannot define the loss dpo/);
});
