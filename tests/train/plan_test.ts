/**
 * Planned memory against what real runs take, and what is refused before they start.
 *
 * @module
 */
import assert from "node:assert/strict";
import { MEMORY_CATEGORIES } from "../../engine/buffers.ts";
import { Gpu } from "../../engine/gpu.ts";
import { builtInPlan, choosePlans, productPlan } from "../../engine/ops/dispatch.ts";
import { openPlanningGpu, type PlanningOptions } from "../../engine/planning_gpu.ts";
import { COMMON_CARD, QWEN_EXTENTS, qwenStep } from "../../train/bench/memory.ts";
import { addLora } from "../../train/adapters/lora.ts";
import { parseRunConfig, type RunConfig } from "../../train/config.ts";
import type { EncodedPair } from "../../train/data/encode.ts";
import { parseLlamaConfig } from "../../train/models/llama_config.ts";
import { formatBytes } from "../../train/format_bytes.ts";
import {
  fits,
  type MemoryPlan,
  PlanError,
  planningOptions,
  planRun,
  planTraining,
  type TrainingSizes,
} from "../../train/plan.ts";
import { findRemedies, planTrainingRun, refuseOverBudget } from "../../train/plan_fit.ts";
import { runTraining } from "../../train/run.ts";
import { changeRunData } from "../../train/change_run_data.ts";
import type { RunData } from "../../train/run_data.ts";
import type { Session } from "../../train/session.ts";
import { testGpu } from "../gpu.ts";
import { randomCompletions, randomPairs, temporaryFolder, tinyModel, tinyTokenizer } from "../tiny_model.ts";

const { limits: LIMITS, adapter: CARD } = COMMON_CARD;
const SOFTWARE = { name: "software", isCpu: true, features: [], subgroupSize: 8 };

const configOf = (raw: Record<string, unknown>): RunConfig =>
  parseRunConfig(raw, { describe: (path) => path.join(".") });

/** A whole run of a tiny model: before, reference, training, saving, after. */
async function tinyRun(session: Session, raw: Record<string, unknown>): Promise<void> {
  const config = configOf({ batchSize: 4, maxSteps: 3, logEvery: 2, ...raw });
  const { rank } = config.lora;
  const plain = tinyModel(session.gpu, {
    config: { num_hidden_layers: 2, max_position_embeddings: 128 },
    trainable: rank === undefined,
  });
  const whole = { ...plain, activationCheckpointing: config.activationCheckpointing };
  using model = rank === undefined ? whole : addLora(whole, { rank });
  const pairs = randomPairs(24, 5);
  const loaded = { model, tokenizer: tinyTokenizer() };
  await runTraining(session, { config, loaded, pairs, evalPairs: pairs.slice(0, 7), [Symbol.dispose]() {} }, {
    cacheFolder: temporaryFolder(),
  });
}

for (
  const raw of [
    { loss: "sft" },
    { loss: "sft", activationCheckpointing: true, gradientAccumulationSteps: 2 },
    { loss: "dpo", gradientAccumulationSteps: 4 },
    { loss: "dpo", activationCheckpointing: true },
    {
      spo: { solver: "unrolled", innerLearningRate: 0.1, hypergradient: "hvp" },
      gradientAccumulationSteps: 2,
    },
    { spo: { solver: "alternating", innerLearningRate: 0.1 } },
    { spo: { solver: "penalty", vStar: "track", innerLearningRate: 0.1, lowerLevelMean: "token" } },
    { loss: "dpo", ldAlpha: 0.5, gradientAccumulationSteps: 2 },
    { loss: "dpo", ldAlpha: 0.5, precomputeReference: false },
    { loss: "dpo", lora: { rank: 4 } },
    { loss: "dpo", lora: { rank: 3 }, activationCheckpointing: true, gradientAccumulationSteps: 2 },
  ]
) {
  Deno.test(`the planned memory is the measured one, in all and in each category: ${JSON.stringify(raw)}`, async () => {
    const { device, adapter } = await testGpu();
    const gpu = new Gpu(device, adapter);
    const nothing = () => {};
    const metrics = { flush: () => 0, append: nothing, close: nothing, [Symbol.dispose]: nothing };
    const progress = () => ({ update: nothing, finish: nothing });
    await tinyRun({ gpu, folder: temporaryFolder(), metrics, progress, log: nothing }, raw);
    const { peakBytes, categories } = gpu.stats().memory;
    const planned = await planRun({ limits: device.limits, adapter }, (session) => tinyRun(session, raw));
    const measured = MEMORY_CATEGORIES.map((name) => [name, categories[name].peakBytes]);
    assert.deepEqual(Object.entries(planned.categories), measured);
    assert.equal(planned.totalBytes, peakBytes);
    assert.equal(planned.phases[0].steps, 3);
    gpu.queue.destroy();
    gpu.buffers.destroy();
  });
}

Deno.test("a DPO step at V = 151,936 with 1,024 tokens a response holds nothing that grows with T times V", async () => {
  const { vocabulary: V, tokens: T } = QWEN_EXTENTS;
  for (const adapter of [CARD, SOFTWARE]) {
    const restOf = async (vocabulary: number, tokens: number) => {
      const step = qwenStep({ ...QWEN_EXTENTS, vocabulary, tokens }, { activationCheckpointing: true });
      const plan = await planTraining({ limits: LIMITS, adapter }, step);
      const { parameters, gradients, optimizer } = plan.categories;
      return plan.totalBytes - parameters - gradients - optimizer;
    };
    const logitBytes = 2 * T * V * 4;
    const [rest, half, shorter, both] = [
      await restOf(V, T),
      await restOf(V / 2, T),
      await restOf(V, T / 2),
      await restOf(V / 2, T / 2),
    ];
    // A software adapter stages the head in a texture, whose size follows V alone.
    if (adapter === CARD) {
      assert.ok(rest < logitBytes, `${rest} of ${logitBytes} bytes`);
      assert.ok(rest - half < logitBytes / 200, `${rest - half} of ${logitBytes} bytes`);
    }
    // A part proportional to T V, logits as f32 say, would leave a quarter of it in the mixed second difference.
    const mixed = rest - half - shorter + both;
    assert.ok(Math.abs(mixed) < logitBytes / 100, `${mixed} of ${logitBytes} bytes`);
  }
});

const MODEL = parseLlamaConfig({
  model_type: "llama",
  vocab_size: 64,
  hidden_size: 64,
  intermediate_size: 128,
  num_hidden_layers: 4,
  num_attention_heads: 2,
  max_position_embeddings: 512,
}, "test");

/** Pairs of 8 and up to 192 tokens. */
function longPairs(): EncodedPair[] {
  return randomCompletions(16, 1).map((made, index) => {
    const side = (length: number, id: number) => ({
      promptIds: [1, 2, 3, 4, 5, 6, 7, 8],
      completionIds: new Array<number>(length).fill(id),
      source: made.source,
    });
    return { chosen: side(184 - index, 1), rejected: side(180, 2), source: made.source };
  });
}

function runData(raw: Record<string, unknown>): RunData {
  const config = configOf({ batchSize: 8, evalRecords: 1, ...raw });
  const pairs = longPairs();
  return {
    config,
    folder: "",
    modelConfig: MODEL,
    tokenizer: tinyTokenizer(),
    maxLength: 512,
    pairs,
    evalPairs: pairs.slice(0, 1),
  };
}

const optionsWith = (memoryBudgetBytes?: number): PlanningOptions => ({
  limits: LIMITS,
  adapter: CARD,
  memoryBudgetBytes,
});
const planWith = (memoryBudgetBytes?: number) => (data: RunData): Promise<MemoryPlan> =>
  planTrainingRun(optionsWith(memoryBudgetBytes), data, "never read");

Deno.test("a plan over the budget names three settings that fit, each with its smallest change and its memory", async () => {
  const data = runData({});
  const free = await planWith()(data);
  assert.ok(fits(free));
  const plan = planWith(free.totalBytes * 0.6);
  const over = await plan(data);
  assert.ok(!fits(over));
  assert.equal(over.totalBytes, free.totalBytes);
  const remedies = await findRemedies(data, plan);
  const [checkpointing, accumulation, length] = remedies;
  assert.equal(checkpointing.flag, "--activation-checkpointing");
  assert.match(accumulation.flag, /^--gradient-accumulation-steps [248]$/);
  assert.match(length.flag, /^--max-length \d+$/);
  const valueOf = ({ flag }: { flag: string }) => Number(flag.split(" ")[1]);
  const changes = [
    [{ activationCheckpointing: true }, checkpointing, undefined],
    [{ gradientAccumulationSteps: valueOf(accumulation) }, accumulation, {
      gradientAccumulationSteps: valueOf(accumulation) / 2,
    }],
    [{ maxLength: valueOf(length) }, length, { maxLength: valueOf(length) + 1 }],
  ] as const;
  for (const [change, remedy, less] of changes) {
    const changed = await plan(changeRunData(data, change));
    assert.ok(fits(changed), remedy.flag);
    assert.equal(changed.totalBytes, remedy.totalBytes, remedy.flag);
    if (less) assert.ok(!fits(await plan(changeRunData(data, less))), JSON.stringify(less));
  }
  const [total, ...parts] = [over, ...remedies].map(({ totalBytes }) => formatBytes(totalBytes!));
  await assert.rejects(
    refuseOverBudget(over, () => Promise.resolve(remedies)),
    new PlanError(
      `Cannot train: expected at most ${
        formatBytes(over.budgetBytes)
      } of GPU memory (the budget), found ${total} ` +
        `planned; ${remedies.map(({ flag }, index) => `${flag} takes ${parts[index]}`).join("; ")}`,
    ),
  );
});

Deno.test("a plan follows the tuner's choice of the device that it is for", () => {
  using device = openPlanningGpu(COMMON_CARD);
  const plan = { ...builtInPlan(device, "deep"), splitTo: 4321 };
  choosePlans(device, new Map([["TN deep", plan]]));
  using planning = openPlanningGpu(planningOptions(device));
  assert.equal(productPlan(planning, "TN", { m: 64, n: 64, k: 1024 }), plan);
});

Deno.test("a setting that cannot make the run fit says why", async () => {
  const raw = { activationCheckpointing: true, gradientAccumulationSteps: 8 };
  const data = runData(raw);
  const { categories } = await planWith()(data);
  const weights = categories.parameters + categories.gradients + categories.optimizer;
  const reasons = (await findRemedies(data, planWith(weights))).map(({ reason }) => reason);
  assert.deepEqual(reasons.slice(0, 2), ["it is on", "every micro-batch has one item"]);
  assert.match(
    reasons[2]!,
    /^with 9, which leaves one token after the longest prompt, it still takes [\d.]+ MiB$/,
  );
  const curved = runData({ spo: { solver: "penalty", penalty: "quadratic" } });
  const [checkpointing, accumulation] = await findRemedies(curved, planWith(weights));
  assert.match(checkpointing.reason!, /^still takes/);
  assert.equal(accumulation.reason, "this SPO penalty needs the whole batch at once");
  const [, sorted] = await findRemedies(runData({ loss: "aot" }), planWith(weights));
  assert.equal(sorted.reason, "this loss needs the whole batch at once");
});

Deno.test("sizes past a kernel's or the adapter's limit are refused before the first step, naming it", async () => {
  const step: TrainingSizes = {
    model: MODEL,
    loss: "sft",
    promptTokens: 2,
    completionTokens: 8,
    batchSize: 1,
  };
  const refuses = (options: Partial<PlanningOptions>, sizes: Partial<TrainingSizes>, message: RegExp) =>
    assert.rejects(
      planTraining({ limits: LIMITS, adapter: CARD, ...options }, { ...step, ...sizes }),
      (error) => {
        assert.ok(error instanceof PlanError);
        assert.match(error.message, message);
        return true;
      },
    );
  const model = { ...MODEL, max_position_embeddings: 2 ** 17 };
  await refuses(
    { adapter: SOFTWARE },
    {
      model: { ...model, num_attention_heads: 8, num_key_value_heads: 1, head_dim: 8 },
      completionTokens: 70_000,
    },
    /^Cannot run attention: expected at most \d+ .* on this software adapter, found 70/,
  );
  await refuses(
    { limits: { ...LIMITS, maxComputeWorkgroupStorageSize: 1024 } },
    {},
    /^Cannot .*: expected at most 1024 bytes of workgroup memory on this adapter, found \d+/,
  );
  await refuses(
    { limits: { ...LIMITS, maxStorageBufferBindingSize: 2 ** 20 } },
    { batchSize: 1000 },
    /^Cannot allocate .*: expected at most 1048576 bytes in one binding on this adapter, found \d+$/,
  );
  await refuses(
    {},
    { model: { ...MODEL, head_dim: 6 } },
    /^Cannot run attention: expected head_dim a multiple of 4.* found head_dim 6/,
  );
});
