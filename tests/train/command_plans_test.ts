/**
 * The planned memory of measuring commands and of the study against what they take, and what a budget refuses.
 *
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { MemoryBudgetError } from "../../engine/buffers.ts";
import { Gpu } from "../../engine/gpu.ts";
import { type BenchOptions, planBench, runBench } from "../../train/bench.ts";
import { benchDecoding, decodingModel, planBenchDecoding } from "../../train/bench/decoding.ts";
import { TRAINING_SHAPES } from "../../train/bench/training_shapes.ts";
import { parseRunConfig } from "../../train/config.ts";
import { DEMO_PREFERENCE, DEMO_SFT } from "../../train/demo_settings.ts";
import { fits, type MemoryPlan, PlanError, planningOptions, planRun, requireFit } from "../../train/plan.ts";
import {
  planProfileRun,
  planProfileShape,
  type ProfileFlags,
  profileRun,
  profileShape,
} from "../../train/profile/target.ts";
import { readRunData } from "../../train/run_data.ts";
import { planStudy } from "../../train/study/plan.ts";
import { FULL_STUDY, type StudySettings } from "../../train/study/settings.ts";
import { runStudy } from "../../train/study/study.ts";
import { gpuTest } from "../gpu.ts";
import { DIGIT_PAIRS, runTask, writeCheckpoint, writeLines } from "../story/user.ts";
import { temporaryFolder } from "../tiny_model.ts";

const nothing = () => {};
const HOOKS = { log: nothing, progress: () => ({ update: nothing, log: nothing, finish: nothing }) };

/** What something takes on a pool of its own, whose budget may be less. */
async function peakOf(
  gpu: Gpu,
  use: (gpu: Gpu) => Promise<unknown>,
  budgetBytes = Infinity,
): Promise<number> {
  const own = new Gpu(gpu.device, gpu.adapter, { memoryBudgetBytes: budgetBytes });
  try {
    await use(own);
    return own.stats().memory.peakBytes;
  } finally {
    own.buffers.destroy();
  }
}

/** A plan, and what is planned. */
interface Case {
  readonly plan: (gpu: Gpu) => Promise<MemoryPlan>;
  readonly use: (gpu: Gpu) => Promise<unknown>;
}

const SHAPE = { layers: 1, hidden: 16, heads: 2, mlp: 20, vocabulary: 24, batch: 3, tokens: 10 };
const QUICK: BenchOptions = { sizes: [68], shape: SHAPE, samples: 1, sampleMs: 0, stepsPerSample: 2 };

function benchCase(options: BenchOptions): Case {
  return {
    plan: (gpu) => planBench(planningOptions(gpu), options),
    use: (gpu) => runBench(gpu, options),
  };
}

const configOf = (raw: Record<string, unknown>) =>
  parseRunConfig(raw, { describe: (path) => path.join(".") });

function shapeCase(raw: Record<string, unknown>): Case {
  const { batch: batchSize } = TRAINING_SHAPES.tiny;
  const flags: ProfileFlags = {
    ...{ shape: "tiny", steps: 1, json: false, markdown: false },
    config: { ...configOf(raw), batchSize },
  };
  return {
    plan: (gpu) => planProfileShape(planningOptions(gpu), flags),
    use: (gpu) => profileShape(gpu, flags, {}),
  };
}

async function runCase(): Promise<Case> {
  const folder = temporaryFolder();
  const [model, data] = [join(folder, "model"), join(folder, "pairs.jsonl")];
  await writeCheckpoint(model);
  await writeLines(data, DIGIT_PAIRS);
  const read = await readRunData(configOf({ model, data, batchSize: 4, spo: { solver: "penalty" } }), HOOKS);
  return {
    plan: (gpu) => planProfileRun(planningOptions(gpu), read, 1),
    use: (gpu) => profileRun(gpu, read, { steps: 1 }),
  };
}

function decodingCase(): Case {
  const use = async (gpu: Gpu, decode: (model: ReturnType<typeof decodingModel>) => Promise<unknown>) => {
    using model = decodingModel(gpu, TRAINING_SHAPES.tiny);
    await decode(model);
  };
  const batches = [1, 3];
  return {
    plan: (gpu) =>
      planRun(planningOptions(gpu), ({ gpu }) => use(gpu, (model) => planBenchDecoding(model, batches))),
    use: (gpu) => use(gpu, (model) => benchDecoding(model, { batches, samples: 1 })),
  };
}

const CASES: Record<string, () => Case | Promise<Case>> = {
  "bench: products and steps": () => benchCase(QUICK),
  "bench: tilings": () => benchCase({ ...QUICK, sizes: [], steps: [], tiles: true, tileSize: 36 }),
  "profile: dpo with its reference in every step": () => shapeCase({ precomputeReference: false }),
  "profile: a run": runCase,
};

/** The least budget that a plan fits: free buffers of the pool are given up before one is refused. */
async function leastBudget(planWithin: (budgetBytes: number) => Promise<MemoryPlan>): Promise<number> {
  let [low, high] = [0, (await planWithin(Infinity)).totalBytes];
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (fits(await planWithin(middle))) high = middle;
    else low = middle;
  }
  return high;
}

for (const [name, make] of Object.entries(CASES)) {
  gpuTest(`the least budget that a plan fits is the least that it runs in; ${name}`, async (gpu) => {
    const { plan, use } = await make();
    const planWithin = (memoryBudgetBytes: number) =>
      plan(new Gpu(gpu.device, gpu.adapter, { memoryBudgetBytes }));
    const least = await leastBudget(planWithin);
    assert.equal(await peakOf(gpu, use, least), (await planWithin(least)).totalBytes);
    await assert.rejects(peakOf(gpu, use, least - 1), MemoryBudgetError);
    const refused = await planWithin(least - 1);
    assert.throws(() => requireFit(refused, { action: "measure" }), PlanError);
  });
}

gpuTest("the planned memory of decoding is what it takes", async (gpu) => {
  const { plan, use } = decodingCase();
  const share = (await plan(gpu)).totalBytes / await peakOf(gpu, use);
  // A plan has a decoder for ids and one for logits; one decoder reads both.
  assert.ok(share >= 1 && share < 1.1, `${share}`);
});

const TOY: StudySettings = {
  ...FULL_STUDY,
  // Runs take more than the model's fine-tuning before them.
  sft: { ...DEMO_SFT, steps: 4, batchSize: 2, examples: 64 },
  preference: { ...DEMO_PREFERENCE, steps: 2, batchSize: 16, pairs: 16 },
  ...{ heldOut: 8, massProblems: 2, evolutionProblems: 2, evolutionEvery: 1, seeds: 1 },
  sweeps: {
    initialization: [0.5],
    corruptedDigits: [4],
    beta: [],
    learningRate: [],
    lambda: [],
    solvers: false,
  },
};

gpuTest("the planned memory of a study holds every one of its runs", async (gpu) => {
  const plan = await planStudy(planningOptions(gpu), TOY);
  const cells = {
    find: () => Promise.resolve(undefined),
    keep: () => Promise.resolve(),
    path: (settings: unknown) => JSON.stringify(settings),
  };
  const peakBytes = await peakOf(gpu, (own) => runStudy(own, TOY, { cells, hooks: HOOKS }));
  // Steps of a shape that was met are planned once, and the pool keeps a buffer of every size that it met.
  const share = plan.totalBytes / peakBytes;
  assert.ok(share >= 1 && share < 1.1, `${share} of ${peakBytes}`);
});

for (
  const [task, args, message] of [
    [
      "bench",
      ["--shape", "tiny", "--max-size", "256"],
      /^Cannot measure: .* a smaller --shape and --max-size/,
    ],
    ["bench", ["--shape", "tiny", "--decode"], /^Cannot measure: .* a smaller --shape or --model/],
    ["profile", ["--shape", "tiny"], /^Cannot profile: .* a smaller --shape takes less/],
    ["study", ["--quick"], /^Cannot run the study: expected/],
  ] as const
) {
  Deno.test(`${task} ${args.join(" ")} refuses what its budget does not hold, and writes nothing`, async () => {
    const output = join(temporaryFolder(), "out");
    const folder = task === "study" ? ["--output", output] : [];
    const { code, out, error } = await runTask(task, [...args, ...folder, "--memory-budget-gb", "0.001"]);
    const line = error.trimEnd().split("\n").at(-1)!;
    assert.match(line.replace(/^error: /, ""), message);
    assert.match(line, /expected at most 1\.02 MiB of GPU memory \(the budget\), found [\d.]+ MiB planned/);
    assert.equal(code, 1);
    if (task !== "study") assert.equal(out, "");
    await assert.rejects(Deno.lstat(output), Deno.errors.NotFound);
  });
}
