import assert from "node:assert/strict";
import type { Gpu } from "../../engine/gpu.ts";
import { toHost, writeHost } from "../../engine/tensor.ts";
import type { EncodedCompletion } from "../../train/data/encode.ts";
import { PAIR_LOSSES, type PairLossKey } from "../../train/losses/registry.ts";
import { parseSpoOptions, type SpoOptions } from "../../train/losses/spo.ts";
import type { MetricsRecord } from "../../train/metrics.ts";
import type { Model } from "../../train/models/model.ts";
import { preferenceObjective } from "../../train/objective.ts";
import { type ReferenceLogps, referenceLogps } from "../../train/reference.ts";
import { spoStrategy } from "../../train/solvers/spo_strategy.ts";
import { train, type TrainOptions } from "../../train/trainer.ts";
import { addLora } from "../../train/adapters/lora.ts";
import { gpuTest } from "../gpu.ts";
import { assertClose } from "../ops/check_op.ts";
import { forward as adamwReference } from "../reference/adamw.ts";
import { forward as clipReference } from "../reference/clip.ts";
import * as llama from "../reference/llama.ts";
import { normals, seededRandom } from "../reference/random.ts";
import { randomCompletions, randomPairs, readGradients, readWeights, tinyModel } from "../tiny_model.ts";

const PAIRS = randomPairs(6, 11);
const CHOSEN = PAIRS.map(({ chosen }) => chosen);
const LOSSES = Object.keys(PAIR_LOSSES) as PairLossKey[];

interface RunOptions {
  loss?: PairLossKey;
  dtype?: "f32" | "f16";
  sft?: { completions: readonly EncodedCompletion[]; batchSize: number };
  maxSteps?: number;
  learningRate?: number;
  train?: Partial<TrainOptions>;
  /** Log-probs of another model than that which is trained. */
  hasOtherReference?: boolean;
}

interface Run {
  records: MetricsRecord[];
  weights: Float32Array;
  gradients: Float32Array;
}

async function otherReference(gpu: Gpu): Promise<ReferenceLogps> {
  using other = tinyModel(gpu, { seed: 2, trainable: false });
  return await referenceLogps(other, PAIRS);
}

/** Trains a fresh model on all pairs at each step. */
async function run(gpu: Gpu, spo: Partial<SpoOptions>, options: RunOptions = {}): Promise<Run> {
  using model = tinyModel(gpu, { dtype: options.dtype });
  return await runOn(model, spo, options);
}

async function runOn(model: Model, given: Partial<SpoOptions>, options: RunOptions = {}): Promise<Run> {
  const { loss = "dpo", sft, maxSteps = 3, learningRate = 1e-2, hasOtherReference } = options;
  const spo = parseSpoOptions(given);
  using objective = preferenceObjective(model, {
    pairs: PAIRS,
    reference: hasOtherReference ? await otherReference(model.gpu) : await referenceLogps(model, PAIRS),
    loss: PAIR_LOSSES[loss].resolve({}),
    ...spoStrategy(spo, { maxSteps, chosen: CHOSEN, sft }),
  });
  // Against another model's log-probs the first loss is no constant.
  const { initialLoss: _, ...free } = objective;
  const records: MetricsRecord[] = [];
  let clock = 0;
  await train(hasOtherReference ? free : objective, {
    optimizer: { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, maxGradNorm: 1 },
    schedule: { kind: "constant", learningRate, warmupSteps: 0, maxSteps },
    ...{ batchSize: PAIRS.length, seed: 1, logEvery: 1 },
    now: () => clock += 1000,
    ...options.train,
    onLog: (record) => void records.push(record),
  });
  const gradients = model.adapter ? new Float32Array(0) : await readGradients(model);
  return { records, weights: await readWeights(model), gradients };
}

const column = (records: readonly MetricsRecord[], name: string) =>
  records.map((record) => record[name] as number);

/** What a run has in common with one without SPO. */
const common = ({ records, weights }: Run) => ({
  weights,
  records: records.map((record) =>
    Object.entries(record).filter(([name]) => !/^spo\/(inner|v_star|gap|lambda)/.test(name))
  ),
});

/** The largest of some numbers without their sign. */
const largest = (values: Float32Array) => values.reduce((max, value) => Math.max(max, Math.abs(value)), 0);

function assertGradients(found: Float32Array, expected: Float32Array, what: string, rtol = 1e-4): void {
  assert.ok(largest(expected) > 1e-3, `${what}: there is a gradient`);
  assertClose(found, expected, { what, rtol, atol: 4e-6 * largest(expected) });
}

// Every loss of the registry, with each solver in the setting in which it is the loss alone.
const SAME_AS_PLAIN: [string, Partial<SpoOptions>][] = [
  ["unrolled with alpha 0", { solver: "unrolled", innerLearningRate: 0 }],
  ["unrolled with alpha 0, hvp", { solver: "unrolled", innerLearningRate: 0, hypergradient: "hvp" }],
  ["alternating with a lower rate of 0", { solver: "alternating", innerLearningRate: 0 }],
  ["a tracked v* under lambda 0", {
    ...{ solver: "penalty", lambda: 0, vStar: "track", innerLearningRate: 0.1 },
    ...{ trackSteps: 2, trackEvery: 2 },
  }],
];

for (const loss of LOSSES) {
  gpuTest(`${loss}: a solver whose lower level does nothing is exactly the loss alone`, async (gpu) => {
    const plain = await run(gpu, {}, { loss, maxSteps: 2 });
    for (const [name, spo] of SAME_AS_PLAIN) {
      assert.deepEqual(common(await run(gpu, spo, { loss, maxSteps: 2 })), common(plain), name);
    }
  });

  gpuTest(`${loss}: each solver moves the model otherwise, its numbers are finite`, async (gpu) => {
    const plain = await run(gpu, {}, { loss, maxSteps: 2 });
    for (
      const spo of [
        { solver: "unrolled", innerLearningRate: 0.1 },
        { solver: "unrolled", innerLearningRate: 0.1, hypergradient: "hvp" },
        { solver: "alternating", innerLearningRate: 1e-3 },
        { solver: "penalty", vStar: "track", innerLearningRate: 0.1, penalty: "quadratic" },
        { solver: "penalty", lowerLevelMean: "token" },
      ] as const
    ) {
      const { weights, records } = await run(gpu, spo, { loss, maxSteps: 2 });
      assert.ok(weights.every(Number.isFinite));
      assert.notDeepEqual(weights, plain.weights, JSON.stringify(spo));
      const own = spo.solver === "penalty" ? "spo/v_star" : "spo/inner_loss";
      assert.ok(column(records, own).every(Number.isFinite), own);
    }
  });
}

/** The model in f64 at any weights, flat as its one block. */
function f64Model(model: Model) {
  const { config, parameters } = model;
  if (config.model_type !== "llama") throw new TypeError("only Llama has a reference");
  const places = [...parameters.shapes].map(([name, shape]) => ({
    name,
    first: parameters.get(name).range.offsetBytes / 4,
    length: shape.reduce((product, size) => product * size, 1),
  }));
  const sums = (weights: Float64Array, completions: readonly EncodedCompletion[]) => {
    const named = new Map(
      places.map(({ name, first, length }) => [name, weights.subarray(first, first + length)]),
    );
    return completions.map(({ promptIds, completionIds }) => {
      const inputIds = [...promptIds, ...completionIds];
      const { logits } = llama.forward(
        { parameters: named, inputIds, sequenceOffsets: [0, inputIds.length] },
        config,
      );
      return completionIds.reduce((total, id, i) => {
        const start = (promptIds.length - 1 + i) * config.vocab_size;
        const row = logits.subarray(start, start + config.vocab_size);
        return total + row[id] - Math.log(row.reduce((sum, logit) => sum + Math.exp(logit), 0));
      }, 0);
    });
  };
  const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
  return {
    lower(
      weights: Float64Array,
      completions: readonly EncodedCompletion[],
      kind: "sequence" | "token" = "sequence",
    ) {
      const logps = sums(weights, completions);
      const lengths = completions.map(({ completionIds }) => completionIds.length);
      if (kind === "token") return -mean(logps) / mean(lengths);
      return mean(logps.map((sum, s) => -sum / lengths[s]));
    },
    /** DPO, beta 0.1. */
    upper(weights: Float64Array, reference: ReferenceLogps) {
      const [chosen, rejected] = [CHOSEN, PAIRS.map((pair) => pair.rejected)].map((side) =>
        sums(weights, side)
      );
      return mean(PAIRS.map((_, p) => {
        const difference = chosen[p] - reference.chosen[p] - rejected[p] + reference.rejected[p];
        return Math.log1p(Math.exp(-0.1 * difference));
      }));
    },
  };
}

const plus = (a: ArrayLike<number>, factor: number, b: ArrayLike<number>) =>
  Float64Array.from({ length: a.length }, (_, i) => a[i] + factor * b[i]);
const dot = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  Array.from({ length: a.length }, (_, i) => a[i] * b[i]).reduce((sum, value) => sum + value, 0);
const unit = (of: ArrayLike<number>) => plus(new Float64Array(of.length), 1 / Math.sqrt(dot(of, of)), of);
/** Derivative of f at x along d, in f64. */
const along = (f: (x: Float64Array) => number, x: Float64Array, d: Float64Array, h = 1e-5) =>
  (f(plus(x, h, d)) - f(plus(x, -h, d))) / (2 * h);

/** Gradients after a step that moves nothing. */
async function gradientOf(
  model: Model,
  spo: Partial<SpoOptions>,
  options: RunOptions = {},
): Promise<Float32Array> {
  return (await runOn(model, spo, { ...options, maxSteps: 1, learningRate: 0, hasOtherReference: true }))
    .gradients;
}

for (const hypergradient of ["first-order", "hvp"] as const) {
  gpuTest(`unrolled, ${hypergradient}: the gradient along any direction is that of f64`, async (gpu) => {
    using model = tinyModel(gpu);
    const f64 = f64Model(model);
    const reference = await otherReference(gpu);
    const theta = Float64Array.from(await readWeights(model));
    const alpha = 0.05;
    const spo = { solver: "unrolled", innerLearningRate: alpha, hypergradient, hvpEpsilon: 2e-3 } as const;
    const found = await gradientOf(model, spo);
    assert.deepEqual(Float64Array.from(await readWeights(model)), theta, "the parameters came back");
    // grad G by a step of the penalty solver on an upper level without weight: lambda 1 less lambda 0.
    const [one, zero] = [
      await gradientOf(model, { solver: "penalty", lambda: 1 }),
      await gradientOf(model, { solver: "penalty", lambda: 0 }),
    ];
    const lower = plus(one, -1, zero);
    const inner = plus(theta, -alpha, lower);
    const G = (x: Float64Array) => f64.lower(x, CHOSEN);
    const F = (x: Float64Array) => f64.upper(x, reference);
    const random = seededRandom(4);
    const directions = [
      found,
      lower,
      ...Array.from({ length: 4 }, () => normals(random, { length: theta.length })),
    ];
    let curvature = 0;
    for (const direction of directions) {
      const d = unit(direction);
      assertClose([dot(lower, d)], [along(G, theta, d)], { what: "grad G", atol: 2e-5, rtol: 1e-4 });
      const first = along(F, inner, d);
      if (hypergradient === "first-order") {
        assertClose([dot(found, d)], [first], { what: "grad F", atol: 2e-6, rtol: 1e-4 });
        continue;
      }
      // d H v, H the Hessian of G: v = grad F(theta~), whose part along each direction is all that is needed of it.
      const v = Float64Array.from(await gradientOf(model, { solver: "unrolled", innerLearningRate: alpha }));
      const h = 1e-3;
      const u = unit(v);
      const mixed = along((x) => along(G, x, u, h), theta, d, h) * Math.sqrt(dot(v, v));
      curvature = Math.max(curvature, Math.abs(alpha * mixed / Math.sqrt(dot(v, v))));
      assertClose([dot(found, d)], [first - alpha * mixed], {
        what: "hypergradient",
        // Of central differences of f32 gradients: rounding over 2 epsilon, and the third derivative.
        atol: 2e-3 * alpha * Math.sqrt(dot(v, v)),
        rtol: 1e-4,
      });
    }
    if (hypergradient === "hvp") assert.ok(curvature > 0.02, `H matters: ${curvature}`);
  });
}

gpuTest("unrolled: in micro-batches the same, F where G is a token mean of other data", async (gpu) => {
  const sft = { completions: randomCompletions(8, 5), batchSize: 4 };
  for (const hypergradient of ["first-order", "hvp"] as const) {
    const spo = {
      solver: "unrolled",
      innerLearningRate: 0.05,
      hypergradient,
      lowerLevelMean: "token",
    } as const;
    const options = { sft, maxSteps: 1, learningRate: 0 };
    const whole = await run(gpu, spo, options);
    const split = await run(gpu, spo, { ...options, train: { gradientAccumulationSteps: 2 } });
    assertGradients(split.gradients, whole.gradients, hypergradient, 1e-3);
    assertClose(column(split.records, "spo/inner_loss"), column(whole.records, "spo/inner_loss"), {
      what: "G",
    });
  }
});

gpuTest(
  "alternating: the lower level's step is AdamW's on G; the upper level's then starts there",
  async (gpu) => {
    using model = tinyModel(gpu);
    const start = await readWeights(model);
    const [one, zero] = [
      await gradientOf(model, { solver: "penalty", lambda: 1 }),
      await gradientOf(model, { solver: "penalty", lambda: 0 }),
    ];
    const clip = clipReference({ gradients: [plus(one, -1, zero)] }, { maxNorm: 1 });
    const zeros = () => new Float64Array(start.length);
    const expected = adamwReference(
      { parameter: Float64Array.from(start), m: zeros(), v: zeros(), gradient: clip.gradients[0] },
      {
        length: start.length,
        learningRate: 0.003,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weightDecay: 0,
        step: 1,
      },
    );
    const spo = { solver: "alternating", innerLearningRate: 0.003 } as const;
    const { records, weights } = await runOn(model, spo, { maxSteps: 1, learningRate: 0 });
    // Where the gradient is rounding alone, its sign is too: the step is then as long to either side.
    const moved = plus(weights, -1, start);
    const wrong =
      moved.filter((value, i) => Math.abs(value - expected.parameter[i] + start[i]) > 2e-5).length;
    assert.ok(wrong < 0.01 * start.length, `${wrong} of ${start.length} parameters moved otherwise`);
    assert.ok((records[0]["spo/lower_level"] as number) < (records[0]["spo/inner_loss"] as number));
  },
);

gpuTest("alternating keeps chosen answers likelier than the loss alone, and works in f16", async (gpu) => {
  for (const dtype of ["f32", "f16"] as const) {
    const plain = await run(gpu, {}, { dtype, maxSteps: 12 });
    const spo = await run(gpu, { solver: "alternating", innerLearningRate: 1e-2 }, { dtype, maxSteps: 12 });
    const last = ({ records }: Run) => column(records, "spo/lower_level").at(-1)!;
    assert.ok(last(spo) < last(plain) - 0.1, `${dtype}: ${last(spo)} < ${last(plain)}`);
    assert.ok(column(spo.records, "loss").at(-1)! < Math.LN2);
  }
});

gpuTest("a tracked v* is the least G of K steps of descent, and only ever falls", async (gpu) => {
  using model = tinyModel(gpu);
  const f64 = f64Model(model);
  const alpha = 0.2;
  const G = (x: ArrayLike<number>) => f64.lower(Float64Array.from(x), CHOSEN);
  let theta: Float64Array = Float64Array.from(await readWeights(model));
  const values = [G(theta)];
  for (let k = 0; k < 3; k++) {
    using there = tinyModel(gpu);
    writeHost(there.parameters.blocks[0].weight, Float32Array.from(theta));
    const [one, zero] = [
      await gradientOf(there, { solver: "penalty", lambda: 1 }),
      await gradientOf(there, { solver: "penalty", lambda: 0 }),
    ];
    theta = plus(theta, -alpha, plus(one, -1, zero));
    values.push(G(theta));
  }
  const track = { solver: "penalty", vStar: "track", innerLearningRate: alpha, trackSteps: 3 } as const;
  const { records } = await runOn(model, { ...track, trackEvery: 3 }, { maxSteps: 7 });
  const vStar = column(records, "spo/v_star");
  assertClose([vStar[0]], [Math.min(...values)], { what: "v*", rtol: 1e-5 });
  assert.ok(vStar[0] < values[0] - 0.01, "lower than where it starts");
  vStar.forEach((value, index) => {
    if (index % 3 !== 0) assertClose([value], [vStar[index - 1]], { what: "between searches" });
    else if (index > 0) assert.ok(value <= vStar[index - 1] + 1e-6);
  });
  assert.ok(column(records, "spo/gap")[0] > 0);
});

gpuTest("a search whose steps are too long leaves the parameters as they were", async (gpu) => {
  const spo = {
    solver: "penalty",
    vStar: "track",
    innerLearningRate: 3e38,
    trackSteps: 2,
    lambda: 0,
  } as const;
  const found = await run(gpu, spo);
  assert.deepEqual(found.weights, (await run(gpu, {})).weights);
  assert.ok(column(found.records, "spo/gap").every((gap) => Number.isFinite(gap)));
});

/** Every phi and lambda, G having passes of its own. */
const SHAPES: Partial<SpoOptions>[] = [
  { penalty: "linear", lambda: 0.7 },
  { penalty: "hinge", lambda: 0.7, vStar: 0.5, epsilon: 0.1 },
  { penalty: "quadratic", lambda: 0.7, vStar: 0.5, epsilon: 0.1 },
  { penalty: "linear", lambdaSchedule: "dual", lambda: 0.3, dualRate: 0.5, vStar: 0.5 },
  { penalty: "linear", lambdaSchedule: "linear", lambda: 0.1, lambdaEnd: 2, rho: 0.4, margin: 1 },
];

for (const shape of SHAPES) {
  gpuTest(
    `the lower level in passes of its own is that within the loss: ${JSON.stringify(shape)}`,
    async (gpu) => {
      const spo = { solver: "penalty", ...shape } as const;
      const within = await run(gpu, spo, { hasOtherReference: true });
      const sft = { completions: CHOSEN, batchSize: CHOSEN.length };
      const separate = await run(gpu, spo, { hasOtherReference: true, sft });
      assertClose(separate.weights, within.weights, { what: "weights", atol: 1e-4 });
      for (
        const name of ["loss", "preference_loss", "spo/lower_level", "spo/gap", "spo/lambda", "grad_norm"]
      ) {
        const [found, expected] = [separate, within].map(({ records }) => column(records, name));
        assertClose(found, expected, { what: name, atol: 2e-5, rtol: 1e-4 });
      }
    },
  );
}

gpuTest(
  "the lower level's own data: its gradient, its mean over tokens, its order by the seed",
  async (gpu) => {
    using model = tinyModel(gpu);
    const f64 = f64Model(model);
    const theta = Float64Array.from(await readWeights(model));
    const completions = randomCompletions(5, 9);
    const zero = await gradientOf(model, { solver: "penalty", lambda: 0 });
    for (const lowerLevelMean of ["sequence", "token"] as const) {
      const spo = { solver: "penalty", lambda: 1, lowerLevelMean, vStar: 0 } as const;
      const all = {
        sft: { completions, batchSize: 5 },
        hasOtherReference: true,
        maxSteps: 1,
        learningRate: 0,
      };
      const { gradients, records } = await runOn(model, spo, all);
      const G = (x: Float64Array) => f64.lower(x, completions, lowerLevelMean);
      assertClose([records[0]["spo/lower_level"] as number], [G(theta)], { what: `G, ${lowerLevelMean}` });
      const lower = plus(gradients, -1, zero);
      for (const d of [unit(lower), unit(normals(seededRandom(8), { length: theta.length }))]) {
        assertClose([dot(lower, d)], [along(G, theta, d)], { what: lowerLevelMean, atol: 2e-5, rtol: 1e-4 });
      }
    }
    const some = { sft: { completions, batchSize: 2 }, learningRate: 0, maxSteps: 4 };
    const spo = { solver: "penalty", vStar: 0 } as const;
    const G = column((await runOn(model, spo, some)).records, "spo/lower_level");
    assert.deepEqual(column((await runOn(model, spo, some)).records, "spo/lower_level"), G);
    assert.ok(new Set(G).size > 1, "batches differ");
    const halves = { ...some, train: { gradientAccumulationSteps: 2 } };
    assertClose(column((await runOn(model, spo, halves)).records, "spo/lower_level"), G, {
      what: "in halves",
    });
  },
);

/** An adapter on a frozen model, its second factor not zero, so that G's curvature reaches the first. */
async function adapted(gpu: Gpu): Promise<Model> {
  const model = addLora(tinyModel(gpu, { trainable: false }), { rank: 3 });
  const [block] = model.trained.blocks;
  writeHost(
    block.weight,
    Float32Array.from(normals(seededRandom(6), { length: block.weight.shape[0], scale: 0.2 })),
  );
  await gpu.queue.read({ ...block.weight.range, sizeBytes: 16 });
  return model;
}

for (
  const spo of [
    { solver: "unrolled", innerLearningRate: 0.1, hypergradient: "hvp" },
    { solver: "alternating", innerLearningRate: 1e-3 },
    { solver: "penalty", vStar: "track", innerLearningRate: 0.1, penalty: "quadratic", lambda: 5 },
  ] as const
) {
  gpuTest(
    `LoRA, ${spo.solver}: the adapter moves, by the lower level too, and its base stays`,
    async (gpu) => {
      using model = await adapted(gpu);
      using plain = await adapted(gpu);
      const base = await readWeights(model);
      const trained = async (of: Model) => await toHost(of.trained.blocks[0].weight);
      const start = await trained(model);
      const { records } = await runOn(model, spo);
      await runOn(plain, {});
      assert.deepEqual(await readWeights(model), base);
      const [found, alone] = [await trained(model), await trained(plain)];
      assert.notDeepEqual(found, start);
      assert.notDeepEqual(found, alone);
      assert.ok(column(records, "grad_norm").every((norm) => Number.isFinite(norm) && norm > 0));
    },
  );
}

gpuTest("a step with inner steps takes no memory that it does not keep", async (gpu) => {
  using model = tinyModel(gpu);
  const peaks: number[] = [];
  const watch = { onLog: () => void peaks.push(gpu.stats().memory.usedBytes) };
  for (
    const spo of [
      { solver: "unrolled", innerLearningRate: 0.01, hypergradient: "hvp" },
      { solver: "alternating", innerLearningRate: 0.01 },
      { solver: "penalty", vStar: "track", innerLearningRate: 0.01, trackEvery: 2 },
    ] as const
  ) {
    peaks.length = 0;
    const options = parseSpoOptions(spo);
    using objective = preferenceObjective(model, {
      pairs: PAIRS,
      reference: await referenceLogps(model, PAIRS),
      loss: PAIR_LOSSES.dpo.resolve({}),
      ...spoStrategy(options, { maxSteps: 8, chosen: CHOSEN }),
    });
    await train(objective, {
      optimizer: { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, maxGradNorm: 1 },
      schedule: { kind: "constant", learningRate: 1e-3, warmupSteps: 0, maxSteps: 8 },
      ...{ batchSize: PAIRS.length, seed: 1, logEvery: 1, ...watch },
    });
    assert.deepEqual(new Set(peaks.slice(2)).size, 1, `${spo.solver}: ${peaks}`);
  }
  assert.ok((await toHost(model.parameters.blocks[0].weight)).every(Number.isFinite));
});
