import assert from "node:assert/strict";
import type { Gpu } from "../../engine/gpu.ts";
import { NO_PENALTY, type SpoPenaltyOptions, spoState } from "../../engine/ops/pair_loss.ts";
import { spoPenalty } from "../../engine/ops/spo_penalty.ts";
import { scaledSum } from "../../engine/ops/scaled_sum.ts";
import { Tape } from "../../engine/tape.ts";
import { fromHost, release, toHost, upload, writeHost } from "../../engine/tensor.ts";
import { SPO_STATE } from "../../shaders/pair_loss.ts";
import { gpuTest } from "../gpu.ts";
import { penaltyOf } from "../reference/spo.ts";
import { assertClose } from "./check_op.ts";

const AT = { loss: 1, lowerLevel: 2, gap: 3, lambda: 0 } as const;

/** A step of micro-batches whose G are these. */
async function stepOf(
  gpu: Gpu,
  parts: readonly number[],
  spo: SpoPenaltyOptions,
  start?: Float32Array<ArrayBuffer>,
) {
  const vector = (...values: number[]) =>
    fromHost(gpu, Float32Array.from(values), { shape: [values.length] });
  const state = spoState(gpu, { lambda: 0.25 });
  if (start) writeHost(state, start);
  const [metrics, gradients, one] = [vector(9, 10, 9, 9), parts.map(() => vector(0)), vector(1)];
  parts.forEach((part, index) => {
    const value = vector(part);
    using tape = new Tape(gpu);
    const x = { ...value, requiresGrad: true, grad: gradients[index] };
    const microBatch = { isFirst: index === 0, isLast: index === parts.length - 1 };
    const loss = spoPenalty(scaledSum(x, { scale: 1 }), { spo, state, metrics, at: AT, microBatch });
    tape.backward([{ tensor: loss, gradient: one }]);
    release(value);
  });
  const slopes = await Promise.all(gradients.map(async (gradient) => (await toHost(gradient))[0]));
  const result = { slopes, metrics: [...await toHost(metrics)], state: [...await toHost(state)] };
  for (const tensor of [state, metrics, one, ...gradients]) release(tensor);
  return result;
}

for (const penalty of ["linear", "hinge", "quadratic"] as const) {
  gpuTest(`spo_penalty, ${penalty}: value, slope and metrics in and out of the region`, async (gpu) => {
    for (const gap of [-0.5, 0.1, 0.75]) {
      const spo = { ...NO_PENALTY, penalty, lambda: 0.6, epsilon: 0.2, vStar: 1.5 };
      const { slopes, metrics } = await stepOf(gpu, [1.5 + gap], spo);
      const expected = penaltyOf(gap, { penalty, epsilon: 0.2 });
      assertClose(slopes, [0.6 * expected.slope], { what: `slope at ${gap}` });
      assertClose(metrics, [0.6, 10 + 0.6 * expected.value, 1.5 + gap, gap], { what: `metrics at ${gap}` });
    }
  });
}

gpuTest("spo_penalty: micro-batches add up, each has the slope, the last one the loss", async (gpu) => {
  const spo = { ...NO_PENALTY, penalty: "linear", lambda: 2, vStar: 1 } as const;
  const { slopes, metrics } = await stepOf(gpu, [0.5, 0.25, 1], spo);
  assert.deepEqual(slopes, [2, 2, 2]);
  assertClose(metrics, [2, 10 + 2 * 0.75, 1.75, 0.75], { what: "metrics" });
});

gpuTest("spo_penalty refuses a curved phi in several micro-batches", (gpu) => {
  const lower = upload(gpu, Float32Array.of(1));
  assert.throws(
    () =>
      spoPenalty(lower, {
        spo: { ...NO_PENALTY, penalty: "hinge", lambda: 1 },
        ...{ state: lower, metrics: lower, at: AT, microBatch: { isFirst: true, isLast: false } },
      }),
    /^RangeError: Cannot run spo_penalty: expected one micro-batch a step with the hinge penalty/,
  );
});

gpuTest(
  "spo_penalty: v* initial starts with the first G and follows it; the dual variable follows the gap",
  async (gpu) => {
    const spo: SpoPenaltyOptions = {
      ...NO_PENALTY,
      ...{ penalty: "linear", lambda: "dual", dualRate: 0.5, epsilon: 0.1 },
      vStar: { initialSteps: 2 },
    };
    const first = await stepOf(gpu, [3], spo);
    assertClose(first.metrics, [0.25, 10, 3, 0], { what: "first step" });
    assertClose([first.state[SPO_STATE.lambda]], [0.25 - 0.05], { what: "lambda" });
    const second = await stepOf(gpu, [4], spo, Float32Array.from(first.state));
    assertClose([second.metrics[AT.gap]], [4 - 3.1], { what: "second gap" });
    const third = await stepOf(gpu, [1], spo, Float32Array.from(second.state));
    assertClose([third.metrics[AT.gap]], [1 - 3.1], { what: "third gap" });
  },
);
