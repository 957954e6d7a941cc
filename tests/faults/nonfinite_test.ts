/**
 * What the diagnosis of a step that is not finite names: the tensor that is at fault, and not what came of it.
 *
 * @module
 */
import assert from "node:assert/strict";
import type { Gpu } from "../../engine/gpu.ts";
import { NO_PENALTY } from "../../engine/ops/pair_loss.ts";
import { findNonFinite, type NonFiniteTensor } from "../../engine/finite_checks.ts";
import { toHost } from "../../engine/tensor.ts";
import { PAIR_LOSSES } from "../../train/losses/registry.ts";
import type { MetricsRecord } from "../../train/metrics.ts";
import type { Model } from "../../train/models/model.ts";
import { type Objective, preferenceObjective, sftObjective } from "../../train/objective.ts";
import { train, type TrainOptions } from "../../train/trainer.ts";
import { gpuTest } from "../gpu.ts";
import { tinyModel } from "../tiny_model.ts";

const source = (index: number) => ({ file: "data.jsonl", line: index + 1 });
const COMPLETIONS = Array.from({ length: 4 }, (_, index) => ({
  promptIds: [1 + index, 2],
  completionIds: [3 + index, 4],
  source: source(index),
}));
const PAIRS = COMPLETIONS.map((chosen, index) => ({
  chosen,
  rejected: { ...chosen, completionIds: [9, 10, 11] },
  source: source(index),
}));

function options(more: Partial<TrainOptions> = {}): TrainOptions {
  return {
    optimizer: { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, maxGradNorm: 1 },
    schedule: { kind: "constant", learningRate: 1e-3, warmupSteps: 0, maxSteps: 4 },
    batchSize: 2,
    seed: 0,
    logEvery: 1,
    ...more,
  };
}

async function plant(model: Model, name: string, value: number): Promise<void> {
  const values = await model.parameters.read(name);
  values[3] = value;
  model.parameters.write(name, values);
}

async function failure(objective: Objective, more: Partial<TrainOptions> = {}): Promise<string> {
  const error = await train(objective, options(more)).then(
    () => assert.fail("the run must end"),
    (error) => error as Error,
  );
  assert.equal(error.name, "TrainingError", error.stack);
  assert.doesNotMatch(error.message, /\n/);
  return error.message;
}

const LAYER = "model.layers.0.";

for (const name of ["model.norm.weight", `${LAYER}mlp.down_proj.weight`, `${LAYER}self_attn.o_proj.weight`]) {
  gpuTest(`a NaN in ${name} is found there`, async (gpu) => {
    using model = tinyModel(gpu);
    await plant(model, name, NaN);
    using objective = sftObjective(model, COMPLETIONS);
    const message = await failure(objective);
    assert.match(message, /^Cannot go on at step 1: .* in the batch of data\.jsonl:\d, data\.jsonl:\d: /);
    assert.ok(message.includes(`is the parameter ${name} (1 number), read by `), message);
  });
}

gpuTest("weights that overflow a product are named with it", async (gpu) => {
  using model = tinyModel(gpu);
  const name = "lm_head.weight";
  const values = await model.parameters.read(name);
  model.parameters.write(name, values.map((_, index) => (index % 2 ? 3e38 : 2.9e38)));
  using objective = sftObjective(model, COMPLETIONS);
  assert.match(await failure(objective), /is the result \w+ of token_\w+ with lm_head\.weight/);
});

gpuTest("a margin of 3e38 shows in the preference loss", async (gpu) => {
  using model = tinyModel(gpu);
  using objective = preferenceObjective(model, {
    pairs: PAIRS,
    reference: { chosen: new Float32Array(4).fill(-3e38), rejected: new Float32Array(4).fill(3e38) },
    loss: PAIR_LOSSES.dpo.resolve({ beta: 10 }),
    spoAt: () => NO_PENALTY,
    lambda: 0,
    startsAtReference: false,
  });
  assert.match(await failure(objective), /is the result \w+ of pair_loss/);
});

gpuTest("f16 activations that overflow at every loss scale are named", async (gpu) => {
  using model = tinyModel(gpu, { dtype: "f16" });
  const name = `${LAYER}mlp.down_proj.weight`;
  const values = await model.parameters.read(name);
  model.parameters.write(name, values.map(() => 6e4));
  using objective = sftObjective(model, COMPLETIONS);
  const message = await failure(objective, {
    schedule: { kind: "constant", learningRate: 1e-3, warmupSteps: 0, maxSteps: 30 },
  });
  assert.match(message, /at a loss scale of at least 1, .*data\.jsonl:/);
  assert.match(message, /is the result \w+ of \w+ with .*mlp\.down_proj\.weight/);
});

for (const dtype of ["f32", "f16"] as const) {
  gpuTest(`a good step has nothing that is not finite, ${dtype}`, async (gpu) => {
    using model = tinyModel(gpu, { dtype });
    using objective = sftObjective(model, COMPLETIONS);
    await train(objective, options({ logEvery: 4 }));
    const found = await checkedForward(gpu, objective);
    assert.equal(
      found && `${found.kernel} ${found.binding} ${found.count} of ${found.range.sizeBytes} B`,
      undefined,
    );
  });
}

async function checkedForward(gpu: Gpu, objective: Objective): Promise<NonFiniteTensor | undefined> {
  const { createMicroBatches } = await import("../../train/micro_batches.ts");
  const { createMetricsRing } = await import("../../train/metrics.ts");
  const { fromHost, release } = await import("../../engine/tensor.ts");
  using ring = createMetricsRing(gpu, 1);
  const seed = fromHost(gpu, Float32Array.of(1), { shape: [1] });
  const batch = Uint32Array.of(0, 1);
  const capacity = objective.size(batch);
  const plan = { steps: [{ batch, microBatches: [batch], labels: capacity.labels }], capacity };
  using batches = createMicroBatches(objective, { plan, metrics: ring.tensor, seed });
  objective.model.trained.zeroGradients();
  try {
    return await findNonFinite(gpu, () => batches.run(1, 0));
  } finally {
    release(seed);
  }
}

/** A loss that is NaN at some steps and right at the others: as a bad record is. */
function poisonedAt(objective: Objective, model: Model, steps: readonly number[]): Objective {
  return {
    ...objective,
    pack(items, size) {
      step++;
      write(steps.includes(step) ? NaN : 1);
      return objective.pack(items, size);
    },
  };
  function write(value: number): void {
    model.parameters.write("model.norm.weight", new Float32Array(16).fill(value));
  }
}
let step = 0;

gpuTest("skip leaves the updates of bad steps out and counts them", async (gpu) => {
  using model = tinyModel(gpu);
  using plain = sftObjective(model, COMPLETIONS);
  // The first call of pack sizes the inputs.
  step = -1;
  const records: MetricsRecord[] = [];
  await train(poisonedAt(plain, model, [2, 3]), {
    ...options({ maxNonfinite: 2 }),
    onLog: (record) => void records.push(record),
  });
  assert.deepEqual(records.map((record) => record.skipped_steps), [0, 1, 2, 2]);
  assert.deepEqual(records.map((record) => Number.isFinite(record.loss)), [true, false, false, true]);
  for (const { weight } of model.parameters.blocks) {
    assert.ok((await toHost(weight)).every(Number.isFinite), "no update was applied");
  }
});

gpuTest("skip stops past its bound, with the diagnosis", async (gpu) => {
  using model = tinyModel(gpu);
  await plant(model, "model.norm.weight", NaN);
  using objective = sftObjective(model, COMPLETIONS);
  const message = await failure(objective, { maxNonfinite: 2 });
  assert.match(message, /^Cannot go on at step 3: .*is the parameter model\.norm\.weight/);
});
