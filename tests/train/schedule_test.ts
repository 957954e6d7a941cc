import assert from "node:assert/strict";
import {
  type LAMBDA_SCHEDULES,
  lambdaAt,
  LEARNING_RATE_SCHEDULES,
  learningRateAt,
} from "../../train/schedule.ts";

const steps = Array.from({ length: 10 }, (_, index) => index + 1);

Deno.test("learning rates are those of transformers' schedulers, step by step", () => {
  // get_*_schedule_with_warmup with 4 warm-up steps of 10, at its steps 0 to 9, times 2.
  const rates = (kind: typeof LEARNING_RATE_SCHEDULES[number]) =>
    steps.map((step) => learningRateAt({ kind, learningRate: 2, warmupSteps: 4, maxSteps: 10 }, step));
  const warm = [0, 0.5, 1, 1.5];
  assert.deepEqual(rates("constant"), [...warm, 2, 2, 2, 2, 2, 2]);
  const linear = [...warm, 2, 10 / 6, 8 / 6, 1, 4 / 6, 2 / 6];
  rates("linear").forEach((rate, i) => assert.ok(Math.abs(rate - linear[i]) < 1e-12, `${i}: ${rate}`));
  const root = Math.sqrt(3) / 2;
  const cosine = [...warm, 2, 1 + root, 1.5, 1, 0.5, 1 - root];
  rates("cosine").forEach((rate, i) => assert.ok(Math.abs(rate - cosine[i]) < 1e-12, `${i}: ${rate}`));
});

Deno.test("a run that is all warm-up, and one without, stay finite and within the highest rate", () => {
  for (const kind of LEARNING_RATE_SCHEDULES) {
    for (const warmupSteps of [0, 10, 20]) {
      const rates = steps.map((step) =>
        learningRateAt({ kind, learningRate: 1, warmupSteps, maxSteps: 10 }, step)
      );
      assert.ok(rates.every((rate) => rate >= 0 && rate <= 1), `${kind} ${warmupSteps}: ${rates}`);
      assert.equal(rates[0], warmupSteps === 0 ? 1 : 0);
    }
  }
});

Deno.test("lambda stays, or grows to its end in its steps and stays there", () => {
  const at = (kind: typeof LAMBDA_SCHEDULES[number]) =>
    [1, 2, 3, 5, 9].map((step) => lambdaAt({ kind, lambda: 1, lambdaEnd: 16, lambdaSteps: 4 }, step));
  assert.deepEqual(at("constant"), [1, 1, 1, 1, 1]);
  assert.deepEqual(at("linear"), [1, 4.75, 8.5, 16, 16]);
  assert.deepEqual(at("geometric"), [1, 2, 4, 16, 16]);
  assert.deepEqual(at("dual"), Array(5).fill("dual"));
});
