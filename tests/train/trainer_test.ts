import assert from "node:assert/strict";
import type { Gpu } from "../../engine/gpu.ts";
import { shapeKey } from "../../engine/inputs.ts";
import { adamw, CLIP_STATE, gradNorm } from "../../engine/ops/adamw.ts";
import { NO_PENALTY } from "../../engine/ops/pair_loss.ts";
import { Tape } from "../../engine/tape.ts";
import { fromHost, release } from "../../engine/tensor.ts";
import { type BatchSize, completionsSize, pairsSize } from "../../train/data/batch.ts";
import { DataError } from "../../train/data/errors.ts";
import { createLoader } from "../../train/data/loader.ts";
import { PAIR_LOSSES } from "../../train/losses/registry.ts";
import { createMetricsRing, type MetricsRecord } from "../../train/metrics.ts";
import { bucketSize } from "../../train/micro_batches.ts";
import type { Model } from "../../train/models/model.ts";
import { type Objective, preferenceObjective, sftObjective } from "../../train/objective.ts";
import { type ReferenceLogps, referenceLogps } from "../../train/reference.ts";
import { learningRateAt } from "../../train/schedule.ts";
import { train, TrainingError, type TrainOptions, type TrainSummary } from "../../train/trainer.ts";
import { gpuTest, LAYOUTS } from "../gpu.ts";
import { assertClose } from "../ops/check_op.ts";
import { forward as adamwReference } from "../reference/adamw.ts";
import { forward as clipReference } from "../reference/clip.ts";
import {
  lossOf,
  randomCompletions,
  randomPairs,
  readGradients,
  readWeights,
  tinyModel,
} from "../tiny_model.ts";

interface Run {
  records: MetricsRecord[];
  weights: Float32Array;
  summary: TrainSummary;
}

type Overrides = Partial<TrainOptions> & { maxSteps?: number; learningRate?: number };

function trainOptions({ maxSteps = 4, learningRate = 1e-2, ...overrides }: Overrides): TrainOptions {
  let clock = 0;
  return {
    optimizer: { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, maxGradNorm: 1 },
    schedule: { kind: "constant", learningRate, warmupSteps: 0, maxSteps },
    ...{ batchSize: 4, seed: 1, logEvery: 1 },
    now: () => clock += 1000,
    ...overrides,
  };
}

/** Trains and collects what it logs. */
async function run(objective: Objective, overrides: Overrides): Promise<Run> {
  const records: MetricsRecord[] = [];
  const summary = await train(objective, {
    ...trainOptions(overrides),
    onLog: async (record) => {
      records.push(record);
      await overrides.onLog?.(record);
    },
  });
  return { records, summary, weights: await readWeights(objective.model) };
}

/** What a test trains: an objective on a model that both end with the test. */
type Make = (model: Model) => Promise<Objective>;

const PAIRS = randomPairs(24, 5);
const COMPLETIONS = randomCompletions(24, 3);

const dpo = (model: Model, reference: ReferenceLogps) =>
  preferenceObjective(model, {
    ...{ pairs: PAIRS, reference, lambda: 0 },
    loss: PAIR_LOSSES.dpo.resolve({}),
    spoAt: () => NO_PENALTY,
  });

const MAKE: Record<"sft" | "dpo", Make> = {
  sft: (model) => Promise.resolve(sftObjective(model, COMPLETIONS)),
  dpo: async (model) => dpo(model, await referenceLogps(model, PAIRS)),
};

/** A run from the same weights each time. */
async function fresh(gpu: Gpu, kind: keyof typeof MAKE, overrides: Overrides): Promise<Run> {
  using model = tinyModel(gpu);
  using objective = await MAKE[kind](model);
  return await run(objective, overrides);
}

/** Calls `before` with each step, of one micro-batch, before it is packed. */
function watched(objective: Objective, before: (step: number, items: Uint32Array) => void): Objective {
  let packed = 0;
  return {
    ...objective,
    pack(items, size) {
      // The first call is for the buffers of the largest batch.
      if (packed > 0) before(packed, items);
      packed++;
      return objective.pack(items, size);
    },
  };
}

const numbers = (records: readonly MetricsRecord[], name: string) =>
  records.map((record) => record[name] as number);

for (const kind of ["sft", "dpo"] as const) {
  gpuTest(
    `${kind}: the loss goes down, and the same seed gives the same metrics and weights bit for bit`,
    async (gpu) => {
      const first = await fresh(gpu, kind, { maxSteps: 24 });
      const again = await fresh(gpu, kind, { maxSteps: 24 });
      assert.deepEqual(again, first);
      const losses = numbers(first.records, "loss");
      const mean = (part: number[]) => part.reduce((sum, loss) => sum + loss, 0) / part.length;
      assert.ok(mean(losses.slice(18)) < 0.8 * mean(losses.slice(0, 6)), `${losses}`);
      const other = await fresh(gpu, kind, { maxSteps: 24, seed: 2 });
      assert.notDeepEqual(numbers(other.records, "loss").slice(1), losses.slice(1));
    },
    { layouts: LAYOUTS },
  );

  for (
    const [split, change] of [
      ["four micro-batches of two do", { gradientAccumulationSteps: 4 }],
      ["micro-batches of at most 45 tokens, however many pairs fit, do", { batchTokens: 45 }],
      ["micro-batches of at most 30 tokens of two equal parts do", {
        batchTokens: 30,
        gradientAccumulationSteps: 2,
      }],
    ] as const
  ) {
    gpuTest(`${kind}: ${split} what one batch of eight does`, async (gpu) => {
      // eps lifts the update away from sign(g), which rounding of a vanishing gradient flips.
      const optimizer = { beta1: 0.9, beta2: 0.999, eps: 1e-3, weightDecay: 0.1, maxGradNorm: 1 };
      const options = { batchSize: 8, maxSteps: 3, optimizer };
      const whole = await fresh(gpu, kind, options);
      const parts = await fresh(gpu, kind, { ...options, ...change });
      // At policy = reference the sign of a difference is that of rounding, which the packing of a batch changes.
      const signs = ["rewards/accuracies", "displacement/fraction"];
      for (const [index, record] of whole.records.entries()) {
        for (const [name, value] of Object.entries(record)) {
          if (index === 0 && signs.includes(name)) continue;
          const what = `${name} of step ${index + 1}`;
          assertClose([parts.records[index][name] as number], [value as number], {
            what,
            atol: 1e-6,
            rtol: 1e-6,
          });
        }
      }
      assertClose(parts.weights, whole.weights, { what: "weights", atol: 1e-6, rtol: 1e-6 });
      const start = await fresh(gpu, kind, { ...options, maxSteps: 1, learningRate: 1e-30 });
      assert.ok(whole.weights.some((value, i) => Math.abs(value - start.weights[i]) > 1e-3), "it trained");
    });
  }

  gpuTest(
    `${kind}: a step of a size that was seen before makes nothing and submits once; one wait a record`,
    async (gpu) => {
      using model = tinyModel(gpu);
      using objective = await MAKE[kind](model);
      // Else buffers of earlier tests would hide that a step asks for another size.
      gpu.buffers.trim();
      const counters: ReturnType<typeof gpu.stats>[] = [];
      const shapes: string[] = [];
      let logged = 0;
      const packing: Objective = {
        ...objective,
        pack(items, size) {
          counters.push(gpu.stats());
          const arrays = objective.pack(items, size);
          shapes.push(shapeKey(arrays));
          return arrays;
        },
      };
      await train(packing, trainOptions({ maxSteps: 24, logEvery: 4, onLog: () => void logged++ }));
      counters.push(gpu.stats());
      let replayed = 0;
      // The first readback, in step four, makes its staging buffer.
      for (let step = 5; step <= 24; step++) {
        const [{ memory, dispatches: _, ...start }, end] = [counters[step], counters[step + 1]];
        assert.equal(end.submits - start.submits, step % 4 === 0 ? 2 : 1, `submits of step ${step}`);
        assert.equal(end.readbacks - start.readbacks, step % 4 === 0 ? 1 : 0, `waits of step ${step}`);
        if (!shapes.slice(1, step).includes(shapes[step])) continue;
        replayed++;
        const { submits, readbacks } = end;
        const { memory: after, dispatches: __, ...counts } = end;
        assert.deepEqual(counts, { ...start, submits, readbacks }, `step ${step}`);
        assert.equal(after.created, memory.created, `step ${step}`);
      }
      assert.ok(new Set(shapes.slice(1)).size >= 2, `batches must differ in size: ${shapes}`);
      assert.ok(replayed >= 12, `${replayed} steps were replayed`);
      assert.equal(logged, 6);
    },
    { layouts: LAYOUTS },
  );

  gpuTest(`${kind}: twenty replayed steps are those that are recorded anew, bit for bit`, async (gpu) => {
    const replayed = await fresh(gpu, kind, { maxSteps: 20 });
    using model = tinyModel(gpu);
    using objective = await MAKE[kind](model);
    const { records, weights } = await stepByStep(objective, 20);
    assert.deepEqual(numbers(replayed.records, "loss"), records.map(({ loss }) => loss));
    assert.deepEqual(numbers(replayed.records, "grad_norm"), records.map(({ grad_norm }) => grad_norm));
    assert.deepEqual(replayed.weights, weights);
  });

  gpuTest(`${kind}: padding to a bucket changes no loss and no gradient`, async (gpu) => {
    using model = tinyModel(gpu);
    using objective = await MAKE[kind](model);
    const items = Uint32Array.of(3, 1, 4, 0);
    const own = objective.size(items);
    const exact = await passOf(objective, items, own);
    const { loss, gradients } = await passOf(objective, items, {
      tokens: own.tokens + 9,
      labels: own.labels + 4,
    });
    assert.equal(loss, exact.loss);
    assertClose(gradients, exact.gradients, { what: "gradients", atol: 1e-6, rtol: 1e-6 });
  });
}

/** Loss and gradients of a padded batch. */
async function passOf(objective: Objective, items: Uint32Array, size: BatchSize) {
  const { model } = objective;
  using ring = createMetricsRing(model.gpu, 1);
  const one = fromHost(model.gpu, Float32Array.of(1), { shape: [1] });
  model.parameters.zeroGradients();
  {
    using tape = new Tape(model.gpu);
    const loss = lossOf(objective, { items, step: 1, metrics: ring.tensor, size });
    tape.backward([{ tensor: loss, gradient: one }]);
  }
  const [{ loss }] = await ring.read(1, ["loss"]);
  release(one);
  return { loss, gradients: await readGradients(model) };
}

/** What `train` does with the options of these tests, every op run in every step. */
async function stepByStep(objective: Objective, steps: number) {
  const { model, model: { gpu } } = objective;
  const { batchSize, seed, schedule: { learningRate }, optimizer } = trainOptions({});
  const loader = createLoader({ count: objective.count, batchSize, seed });
  const batches = Array.from({ length: steps }, () => loader.next().indices);
  const sizes = batches.map((items) => objective.size(items));
  const largest = {
    tokens: Math.max(...sizes.map(({ tokens }) => tokens)),
    labels: Math.max(...sizes.map(({ labels }) => labels)),
  };
  const [{ weight, gradient, decayElements }] = model.parameters.blocks;
  const zeros = (length: number) => fromHost(gpu, new Float32Array(length), { shape: [length] });
  const [moment1, moment2] = [zeros(weight.shape[0]), zeros(weight.shape[0])];
  const [clip, one] = [zeros(CLIP_STATE.size), fromHost(gpu, Float32Array.of(1), { shape: [1] })];
  using ring = createMetricsRing(gpu, 1);
  const records: Record<string, number>[] = [];
  for (const [index, items] of batches.entries()) {
    model.parameters.zeroGradients();
    const tape = new Tape(gpu);
    const size = bucketSize(sizes[index], largest);
    const loss = lossOf(objective, { items, step: index + 1, metrics: ring.tensor, size });
    tape.backward([{ tensor: loss, gradient: one }]);
    gradNorm([gradient!], clip, { maxNorm: optimizer.maxGradNorm, metric: ring.gradNorm(0) });
    adamw({ weight, gradient: gradient!, moment1, moment2 }, clip, {
      ...optimizer,
      ...{ learningRate, step: index + 1, decayElements },
    });
    records.push(...await ring.read(1, objective.metricNames));
  }
  [moment1, moment2, clip, one].forEach(release);
  return { records, weights: await readWeights(model) };
}

gpuTest(
  "gpt2: replayed steps read each batch's positions, and are those that are recorded anew",
  async (gpu) => {
    const config = {
      ...{ model_type: "gpt2", n_embd: 16, n_head: 2, n_layer: 1, n_positions: 32 },
      ...{ bos_token_id: 1, eos_token_id: 2 },
    };
    using model = tinyModel(gpu, { config });
    using objective = await MAKE.dpo(model);
    const replayed = await run(objective, { maxSteps: 12 });
    using anew = tinyModel(gpu, { config });
    using other = await MAKE.dpo(anew);
    const { records, weights } = await stepByStep(other, 12);
    assert.deepEqual(numbers(replayed.records, "loss"), records.map(({ loss }) => loss));
    assert.deepEqual(replayed.weights, weights);
  },
);

gpuTest("a logged record is the mean over its steps, with tokens, epoch and speed", async (gpu) => {
  const each = await fresh(gpu, "dpo", { maxSteps: 7 });
  const grouped = await fresh(gpu, "dpo", { maxSteps: 7, logEvery: 3 });
  assert.deepEqual(grouped.weights, each.weights);
  assert.deepEqual(numbers(grouped.records, "global_step"), [3, 6, 7]);
  for (const [index, [from, to]] of [[0, 3], [3, 6], [6, 7]].entries()) {
    const part = each.records.slice(from, to);
    for (const name of ["loss", "grad_norm", "rewards/margins", "logps/rejected"]) {
      const mean = numbers(part, name).reduce((sum, value) => sum + value, 0) / part.length;
      assertClose([grouped.records[index][name] as number], [mean], { what: name, rtol: 1e-12, atol: 0 });
    }
    assert.equal(grouped.records[index].num_tokens, each.records[to - 1].num_tokens);
  }
  // Six steps are an epoch: every text once, with the prompt on both sides.
  const texts = PAIRS.flatMap(({ chosen, rejected }) => [chosen, rejected]);
  assert.equal(each.records[5].num_tokens, completionsSize(texts).tokens);
  // The clock of these runs ticks one second a look. What goes through the model has the prompts once.
  const speeds = numbers(grouped.records, "tokens_per_second");
  const tokens = speeds.reduce((total, speed) => total + speed, 0);
  assert.ok(tokens < Number(grouped.records[2].num_tokens));
  assert.equal(
    numbers(each.records, "tokens_per_second").slice(0, 6).reduce((a, b) => a + b),
    pairsSize(PAIRS).tokens,
  );
  assert.deepEqual(numbers(each.records, "epoch"), [1, 2, 3, 4, 5, 6, 7].map((step) => step / 6));
  const { largest: _, ...summary } = grouped.summary;
  assert.deepEqual(summary, {
    ...{ steps: 7, elapsedMs: 3000, wasAborted: false },
    tokens,
  });
});

gpuTest(
  "an abort while logging, in a step or between two ends the run after that step, which is logged",
  async (gpu) => {
    const abortAt = async (
      when: (controller: AbortController) => Overrides & { inStep?: (step: number) => void },
    ) => {
      using model = tinyModel(gpu);
      const controller = new AbortController();
      const { inStep = () => {}, ...overrides } = when(controller);
      const objective = watched(sftObjective(model, COMPLETIONS), inStep);
      const { summary, records } = await run(objective, {
        maxSteps: 10,
        signal: controller.signal,
        ...overrides,
      });
      assert.equal(summary.wasAborted, true);
      assert.equal(records.at(-1)!.num_tokens, summary.tokens);
      return [summary.steps, ...numbers(records, "global_step")];
    };
    const whileLogging = await abortAt((controller) => ({ logEvery: 2, onLog: () => controller.abort() }));
    assert.deepEqual(whileLogging, [2, 2]);
    const inStep = await abortAt((controller) => ({
      logEvery: 3,
      inStep: (step) => step === 4 && controller.abort(),
    }));
    assert.deepEqual(inStep, [4, 3, 4]);
    const between = await abortAt((controller) => ({
      logEvery: 3,
      inStep: (step) => step === 5 && setTimeout(() => controller.abort(), 0),
    }));
    assert.deepEqual(between, [5, 3, 5]);
  },
);

gpuTest("a run that is aborted before it starts does nothing and logs nothing", async (gpu) => {
  const { records, summary } = await fresh(gpu, "sft", { signal: AbortSignal.abort() });
  assert.deepEqual(records, []);
  const { largest, ...done } = summary;
  assert.deepEqual(done, { steps: 0, tokens: 0, elapsedMs: 0, wasAborted: true });
  assert.ok(largest.tokens > largest.labels);
});

gpuTest(
  "a NaN in any parameter stops the run at its step, names the items and leaves the weights",
  async (gpu) => {
    using healthy = tinyModel(gpu);
    for (const [name, shape] of healthy.parameters.shapes) {
      using model = tinyModel(gpu);
      const values = await model.parameters.read(name);
      // All of an embedding, since a batch need not hold a given token.
      values.fill(NaN, 0, name.includes("embed") ? values.length : shape.length === 2 ? shape[1] : 1);
      let planted = new Float32Array();
      const records: MetricsRecord[] = [];
      await assert.rejects(
        train(
          sftObjective(model, COMPLETIONS),
          trainOptions({
            maxSteps: 6,
            logEvery: 2,
            onLog: async (record) => {
              records.push(record);
              model.parameters.write(name, values);
              planted = Float32Array.from(await readWeights(model));
            },
          }),
        ),
        (error: Error) => {
          assert.ok(error instanceof TrainingError, `${name}: ${error}`);
          const found =
            /^Cannot go on at step 3: expected finite numbers, found (loss|grad_norm) NaN in the batch of /;
          assert.match(error.message, found, name);
          assert.equal(error.message.match(/made\.jsonl:\d+/g)?.length, 4, error.message);
          return true;
        },
      );
      assert.equal(records.length, 1, name);
      assert.deepEqual(await readWeights(model), planted, name);
    }
  },
);

gpuTest("DPO against the log-probs of another model is refused at step one", async (gpu) => {
  using model = tinyModel(gpu);
  using other = tinyModel(gpu, { seed: 9, trainable: false });
  using objective = dpo(model, await referenceLogps(other, PAIRS));
  const records: MetricsRecord[] = [];
  await assert.rejects(
    train(objective, trainOptions({ onLog: (record) => void records.push(record) })),
    (error: Error) =>
      error instanceof TrainingError &&
      /^Cannot trust the reference: expected a first loss of 0\.693\d* \(policy = reference\), found \d/.test(
        error.message,
      ),
  );
  assert.deepEqual(records, []);
});

gpuTest("fewer items than a batch are refused", async (gpu) => {
  using model = tinyModel(gpu);
  await assert.rejects(train(sftObjective(model, COMPLETIONS), trainOptions({ batchSize: 25 })), DataError);
});

gpuTest("every step is the f64 AdamW step of its gradient: schedule, clipping, decay", async (gpu) => {
  using model = tinyModel(gpu);
  const settings = { beta1: 0.8, beta2: 0.95, eps: 1e-6, weightDecay: 0.3 };
  const schedule = { kind: "cosine", learningRate: 0.02, warmupSteps: 2, maxSteps: 6 } as const;
  const start = await readWeights(model);
  const [block, ...others] = model.parameters.blocks;
  assert.equal(others.length, 0);
  const zeros = () => new Float64Array(start.length);
  let expected: ReturnType<typeof adamwReference> = {
    parameter: Float64Array.from(start),
    m: zeros(),
    v: zeros(),
  };
  let clipped = 0;
  await run(sftObjective(model, COMPLETIONS), {
    optimizer: { ...settings, maxGradNorm: 3.5 },
    schedule,
    onLog: async ({ global_step, grad_norm, learning_rate }) => {
      const step = global_step as number;
      const gradient = Float64Array.from(await readGradients(model));
      const clip = clipReference({ gradients: [gradient] }, { maxNorm: 3.5 });
      clipped += clip.coefficient < 1 ? 1 : 0;
      assertClose([grad_norm as number], [clip.norm], { what: "grad_norm" });
      assert.equal(learning_rate, learningRateAt(schedule, step));
      const dims = { ...settings, length: gradient.length, learningRate: learning_rate as number, step };
      const inputs = { ...expected, gradient: clip.gradients[0] };
      const decayed = adamwReference(inputs, dims);
      const plain = adamwReference(inputs, { ...dims, weightDecay: 0 });
      // Norm weights, which do not decay, come last in the block.
      decayed.parameter.set(plain.parameter.subarray(block.decayElements), block.decayElements);
      expected = decayed;
      const weights = await readWeights(model);
      assertClose(weights, expected.parameter, {
        what: `weights after step ${step}`,
        atol: 2e-6,
        rtol: 2e-6,
      });
      if (step === 1) assert.deepEqual(weights, start, "the first step of a warm-up has rate 0");
    },
  });
  assert.ok(clipped > 0 && clipped < 6, `some steps must be clipped and some not: ${clipped}`);
});
