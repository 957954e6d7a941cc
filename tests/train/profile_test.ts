import assert from "node:assert/strict";
import { Gpu } from "../../engine/gpu.ts";
import { scaledSum } from "../../engine/ops/scaled_sum.ts";
import type { ObservedDispatch } from "../../engine/queue.ts";
import { fromHost, release, scope, toHost } from "../../engine/tensor.ts";
import { matmulForward } from "../../shaders/matmul.ts";
import { KERNELS } from "../../shaders/registry.ts";
import { CPU_TILE } from "../../shaders/tile.ts";
import { benchObjective, benchTrainOptions } from "../../train/bench/training.ts";
import { parseCommandLine } from "../../train/command_line.ts";
import { ConfigError } from "../../train/errors.ts";
import { PAIR_LOSSES } from "../../train/losses/registry.ts";
import { formatProfile, type ProfileReport, profileStep } from "../../train/profile.ts";
import { measureCeilings } from "../../train/profile/ceilings.ts";
import { costOf, KERNEL_COSTS, partOf } from "../../train/profile/costs.ts";
import { parseProfile, profileShape } from "../../train/profile/target.ts";
import { observeTimes } from "../../train/profile/timestamps.ts";
import { gpuTest } from "../gpu.ts";

const SHAPE = { layers: 2, hidden: 16, heads: 2, mlp: 20, vocabulary: 24, batch: 3, tokens: 10 };
const CEILINGS = { gflops: 1000, matmulSize: 512, gbPerSecond: 10, copyBytes: 2 ** 26 };

Deno.test("costs: every kernel of the table exists", () => {
  const missing = Object.keys(KERNEL_COSTS).filter((name) => !KERNELS.has(name));
  assert.deepEqual(missing, []);
});

Deno.test("costs: every registered kernel has an entry, which reads what the kernel has", () => {
  assert.deepEqual([...KERNELS.keys()].filter((name) => !Object.hasOwn(KERNEL_COSTS, name)), []);
  for (const [name, { kernel, constants }] of KERNELS) {
    for (const constant of constants) {
      const source = kernel.build(constant);
      const dispatch = {
        ...{ name, source, constants: constant as ObservedDispatch["constants"] },
        params: mapKeys(source.params, () => 4),
        bindings: mapKeys(source.bindings, (id) => ({ allocation: { id }, offsetBytes: 0, sizeBytes: 64 })),
      } as unknown as ObservedDispatch;
      const { flops, bytes } = costOf(dispatch, { attendedKeys: 4 });
      const say = `${name} ${JSON.stringify(constant)}: ${flops} operations, ${bytes} bytes`;
      assert.ok(Number.isFinite(flops) && flops! >= 0 && Number.isFinite(bytes) && bytes > 0, say);
    }
  }
});

Deno.test("costs: the preference part is the losses, SPO, CHES and a moving reference", () => {
  assert.deepEqual(Object.keys(KERNEL_COSTS).filter((name) => partOf(name) === "preference").toSorted(), [
    ...["axpby", "ches_scores", "kto_loss", "mix", "pair_loss", "pair_weights", "scale_by_scalar"],
    ...["scaled_sum", "segment_sum", "segment_sum_backward", "sequence_statistics", "spo_penalty"],
    "statistics_metrics",
  ]);
});

function mapKeys<Value>(of: object, value: (index: number) => Value): Record<string, Value> {
  return Object.fromEntries(Object.keys(of).map((key, index) => [key, value(index)]));
}

Deno.test("costs: of a cache, a query's own keys and values count; of its writes, the places written", () => {
  const context = { attendedKeys: 10 };
  // 3 tokens, 4 query heads and 2 key heads of 8 in f32; a cache of 5 slots and 100 positions.
  const qkv = 3 * (4 + 2 * 2) * 8 * 4;
  const cache = 100 * 5 * 2 * 2 * 8 * 4;
  const rows = { qkv, cache, slots: 12, positions: 12 };
  const params = { heads: 4, kv_heads: 2, row_quads: 16, kv_quads: 8 };
  const cost = (name: string) => {
    const dispatch = observed(name, { bytes: rows, params });
    return costOf({ ...dispatch, constants: { headDim: 8 } }, context);
  };
  const perKey = 2 * 2 * 8 * 4;
  assert.deepEqual(cost("cached_attention_lanes"), {
    flops: 4 * 8 * 4 * 3 * 10,
    bytes: 2 * 3 * 4 * 8 * 4 + 24 + 3 * perKey * 10,
  });
  assert.deepEqual(cost("kv_cache_write"), { flops: 0, bytes: 2 * 3 * perKey + 24 });
});

Deno.test("costs: a product is 2 M N K operations, each operand once, C twice where it is added to", async (t) => {
  const bytes = { a: 4 * 6, b: 6 * 8, c: 4 * 8 };
  const dispatch = (accumulate: number, name = "matmul") =>
    observed(name, { bytes, params: { m: 4, n: 8, k: 6, accumulate } });
  const context = { attendedKeys: 1 };
  assert.deepEqual(costOf(dispatch(0), context), { flops: 2 * 4 * 8 * 6, bytes: 24 + 48 + 32 });
  assert.deepEqual(costOf(dispatch(1), context), { flops: 2 * 4 * 8 * 6, bytes: 24 + 48 + 2 * 32 });
  await t.step("a kernel that is not in the table has bytes alone, and is the model's", () => {
    assert.deepEqual(costOf(dispatch(1, "toString"), context), { bytes: 136 });
    assert.equal(partOf("toString"), "model");
    assert.equal(partOf("pair_loss"), "preference");
  });
  await t.step("a range bound twice is counted once", () => {
    const { bindings, ...rest } = dispatch(0);
    assert.equal(costOf({ ...rest, bindings: { ...bindings, b: bindings.a } }, context).bytes, 24 + 32);
  });
});

/** A dispatch of the matmul kernel's bindings, ranges in different buffers. */
function observed(
  name: string,
  { bytes, params }: { bytes: Record<string, number>; params: Record<string, number> },
): ObservedDispatch {
  const constants = {
    kind: "NN",
    tile: CPU_TILE,
    vector: true,
    storage: { a: "f32", b: "f32", c: "f32" },
  } as const;
  const ranges = Object.entries(bytes).map(([binding, sizeBytes], id) =>
    [binding, { allocation: { id }, offsetBytes: 0, sizeBytes }] as const
  );
  // Without bias and residual A is bound in their place.
  const [[, a]] = ranges;
  const bindings = Object.fromEntries(
    [...ranges, ["bias", a], ["residual", a]],
  ) as unknown as ObservedDispatch["bindings"];
  return { name, source: matmulForward.build(constants), constants, params, bindings };
}

gpuTest("a profile accounts for every dispatch of a step, by kernel", async (gpu) => {
  using objective = await benchObjective(gpu, {
    kind: "dpo, cached reference",
    shape: SHAPE,
    loss: PAIR_LOSSES.dpo.resolve({}),
  });
  const before = gpu.stats().dispatches;
  const report = await profileStep(objective, {
    title: "a step",
    train: benchTrainOptions({ shape: SHAPE, maxSteps: 1 }),
    sequenceLengths: () => [SHAPE.tokens, SHAPE.tokens],
    steps: 2,
    ceilings: CEILINGS,
  });
  const perStep = (gpu.stats().dispatches - before) / 6;
  const { kernels, kernelMs, observedStepMs, parts } = report;
  assert.equal(gpu.queue.observer, null);
  assert.equal(sum(kernels.map(({ dispatches }) => dispatches)), perStep);
  assert.ok(kernels.every(({ name, ns }) => KERNELS.has(name) && ns > 0));
  assert.deepEqual(kernels.filter(({ flops }) => flops === undefined).map(({ name }) => name), []);
  near(sum(kernels.map(({ share }) => share)), 1);
  near(sum(kernels.map(({ ms }) => ms)), kernelMs);
  near(sum(Object.values(parts).map(({ ms }) => ms)), kernelMs);
  near(sum(Object.values(parts).map(({ share }) => share)), 1);
  assert.ok(kernelMs < 1.1 * observedStepMs, `${kernelMs} ms of ${observedStepMs}`);
  assert.ok(parts.preference.ms > 0 && parts.optimizer.ms > 0);
  assert.deepEqual(parts.preference.kernels.toSorted(), [
    ...["pair_loss", "scale_by_scalar", "segment_sum", "segment_sum_backward", "sequence_statistics"],
    "statistics_metrics",
  ]);
  assert.deepEqual(kernels.map(({ ns }) => ns), kernels.map(({ ns }) => ns).toSorted((a, b) => b - a));
  // Two products of D for each of H heads and each pair of tokens that meet, in six sequences and two layers.
  const pairs = 6 * SHAPE.tokens * (SHAPE.tokens + 1) / 2;
  const forward = kernels.find(({ name }) => /^attention_.*_forward$/.test(name))!;
  near(forward.flops!, 2 * 4 * SHAPE.hidden * pairs);
});

/** Flags, and a kernel of the preference part that is timed with them. */
const STEPS: readonly [readonly string[], string][] = [
  [["--loss", "mpo"], "pair_loss"],
  [["--loss", "orpo", "--ches"], "ches_scores"],
  [["--loss", "aot", "--precompute-reference=false"], "pair_loss"],
  [
    ["--loss", "dpo", "--precompute-reference=false", "--sync-ref-model", "--ref-model-sync-steps", "1"],
    "mix",
  ],
  [["--loss", "kto"], "kto_loss"],
  [
    ["--loss", "dpo", "--spo.solver", "penalty", "--spo.penalty", "hinge", "--spo.v-star", "0"],
    "pair_loss",
  ],
  [
    ["--loss", "dpo", "--spo.solver", "penalty", "--spo.lower-level-mean", "token", "--spo.v-star", "0"],
    "spo_penalty",
  ],
  [["--loss", "dpo", "--spo.solver", "unrolled", "--spo.inner-learning-rate", "1e-4"], "axpby"],
];

for (const [flags, kernel] of STEPS) {
  gpuTest(`profile ${flags.join(" ")} times ${kernel} and knows every kernel`, async (gpu) => {
    const line = parseCommandLine(["profile", "--shape", "tiny", "--steps", "1", ...flags]);
    assert.ok(!line.help);
    const { kernels, parts } = await profileShape(gpu, parseProfile(line), { ceilings: CEILINGS });
    assert.ok(parts.preference.kernels.includes(kernel), parts.preference.kernels.join());
    assert.deepEqual(kernels.filter(({ name }) => !Object.hasOwn(KERNEL_COSTS, name)), []);
  });
}

gpuTest("more dispatches than a query set holds are all timed", async (gpu) => {
  const x = fromHost(gpu, Float32Array.of(1, 2, 3, 4), { shape: [4] });
  using observer = observeTimes(gpu, { attendedKeys: 0 });
  scope(gpu, () => {
    for (let i = 0; i < 2100; i++) scaledSum(x, { scale: 1 });
  });
  await toHost(x);
  const [time, ...others] = await observer.read();
  assert.deepEqual(others, []);
  assert.deepEqual([time.name, time.dispatches, time.bytes], ["scaled_sum", 2100, 2100 * 16]);
  assert.ok(time.ns > 0);
  assert.deepEqual(await observer.read(), [], "what was read is not read again");
  release(x);
});

gpuTest("ceilings are rates", async (gpu) => {
  const sizes = { matmulSize: 64, copyBytes: 2 ** 16 };
  const ceilings = await measureCeilings(gpu, { samples: 1, sampleMs: 0, sizes });
  assert.ok(ceilings.gflops > 0 && ceilings.gbPerSecond > 0 && Number.isFinite(ceilings.gbPerSecond));
});

gpuTest("an adapter without timestamp queries is refused by name", (gpu) => {
  const plain = new Gpu(gpu.device, { ...gpu.adapter, features: ["shader-f16"] });
  assert.throws(() => observeTimes(plain, { attendedKeys: 0 }), {
    name: "ConfigError",
    message: "Cannot profile: expected an adapter with timestamp queries (feature timestamp-query), found " +
      `${gpu.adapter.name} with shader-f16`,
  });
  assert.equal(plain.queue.observer, null);
});

Deno.test("a profile becomes a roofline table, and says where its times do not add up", () => {
  const kernel = {
    name: "matmul",
    dispatches: 3,
    ns: 4e6,
    bytes: 1e6,
    flops: 1e9,
    ms: 2,
    share: 0.75,
    gflops: 500,
    gbPerSecond: 0.5,
    intensity: 1000,
    ofRoof: 0.5,
  };
  const { flops: _flops, gflops: _gflops, intensity: _intensity, ...unknown } = kernel;
  const conditions = {
    adapter: "x",
    isCpu: false,
    features: [],
    keel: "1",
    deno: "2",
    system: "s",
    cpu: "c",
  };
  const report: ProfileReport = {
    title: "a step",
    conditions: { ...conditions, cores: 4, load: 0, date: "d" },
    ceilings: CEILINGS,
    steps: 2,
    stepMs: 3,
    observedStepMs: 4,
    kernelMs: 3,
    kernels: [kernel, { ...unknown, name: "other" }],
    parts: {
      model: { ms: 2, share: 0.75, kernels: ["matmul"] },
      optimizer: { ms: 0.75, share: 0.2419, kernels: ["adamw"] },
      preference: { ms: 0.25, share: 0.0081, kernels: ["pair_loss", "segment_sum"] },
    },
  };
  const text = formatProfile(report);
  assert.match(text, /^matmul +2 +75\.0 +3 +500 +0\.500 +1000 +50\.0$/m);
  assert.match(text, /^other +2 +75\.0 +3 +- +0\.500 +- +50\.0$/m);
  assert.match(text, /min\(1000 GFLOP\/s, FLOP\/byte x 10 GB\/s\).*product of 512\^3, .* 64 MiB/);
  assert.match(text, /add up to 3 ms a step, 75\.0 % of its wall time/);
  assert.match(text, /^ {2}Model: 2 ms, 75\.0 %; optimizer: 0\.750 ms, 24\.2 %$/m);
  const last =
    /preference part, .* \(pair_loss, segment_sum\): 0\.250 ms, (.*) % of the kernels, (.*) 2\.0 %\n$/;
  assert.deepEqual(text.match(last)?.slice(1), ["0.810", "under the goal of"]);
  const { parts: { preference } } = report;
  const dear = { ...report, parts: { ...report.parts, preference: { ...preference, share: 0.02 } } };
  assert.deepEqual(formatProfile(dear).match(last)?.slice(1), ["2", "NOT UNDER THE GOAL OF"]);
  assert.doesNotMatch(text, /NOT WITHIN/);
  assert.match(formatProfile({ ...report, observedStepMs: 40 }), /7\.5 %.*: NOT WITHIN 60\.0 TO 110\.0 %/);
  assert.match(formatProfile(report, { markdown: true }), /^\| matmul \| +2 \| +75\.0 \|/m);
});

Deno.test("profile takes the settings of a run, and refuses what nothing would read", () => {
  const parse = (...words: string[]) => {
    const line = parseCommandLine(["profile", ...words]);
    assert.ok(!line.help);
    return parseProfile(line);
  };
  const shape = parse("--loss", "sft", "--shape", "tiny", "--steps", "4", "--markdown");
  assert.deepEqual([shape.shape, shape.steps, shape.markdown, shape.config.loss], ["tiny", 4, true, "sft"]);
  const spo = parse("--loss", "mpo", "--ches", "--spo.solver", "penalty", "--spo.penalty", "quadratic");
  assert.deepEqual([spo.config.ches, spo.config.spo.penalty, spo.config.batchSize], [true, "quadratic", 8]);
  assert.equal(parse("--loss", "kto", "--beta", "0.2").config.beta, 0.2);
  const run = parse("--model", "m", "--data", "d", "--batch-size", "4", "--beta", "0.5");
  assert.deepEqual([run.config.model, run.config.batchSize, run.config.beta], ["m", 4, 0.5]);
  for (
    const [words, message] of [
      [["--batch-size", "4"], /^Cannot use --batch-size: expected --model and --data with it, found a shape/],
      [
        ["--spo.solver", "penalty", "--spo.sft-data", "d"],
        /^Cannot use --spo\.sft-data: expected --model and --data with it, found a shape/,
      ],
      [["--lora.rank", "4"], /^Cannot use --lora\.rank: expected --model and --data with it/],
      [["--loss", "kto", "--shape", "distilgpt2"], /^Cannot use --shape distilgpt2: expected a batch of at/],
      [["--loss", "dpo", "--spo.lambda", "1"], /^Cannot use --spo\.lambda: /],
      [["--model", "m", "--data", "d", "--shape", "tiny"], /^Cannot use --shape: expected neither --model/],
      [["--steps", "0"], /^Cannot use --steps: /],
      [["--shape", "huge"], /^Cannot use --shape: /],
      [["--max-steps", "3"], /^Cannot use --max-steps: expected a flag of profile/],
    ] as const
  ) {
    assert.throws(
      () => parse(...words),
      (error) => error instanceof ConfigError && message.test(error.message),
    );
  }
});

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

function near(actual: number, expected: number): void {
  assert.ok(Math.abs(actual / expected - 1) < 1e-9, `expected ${expected}, found ${actual}`);
}
