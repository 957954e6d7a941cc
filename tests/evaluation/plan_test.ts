/**
 * The planned memory of evaluations and of generation with an adapter, against what they take.
 *
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { Gpu } from "../../engine/gpu.ts";
import { saveAdapter } from "../../train/adapters/adapter_files.ts";
import { addLora } from "../../train/adapters/lora.ts";
import { parseFlags } from "../../train/command_line.ts";
import { evalFlagsSchema } from "../../train/commands/eval.ts";
import { refuseEvaluationOverBudget } from "../../train/evaluation/plan.ts";
import { prepareEvaluation } from "../../train/evaluation/prepare.ts";
import { generate } from "../../train/generate.ts";
import { planGeneration } from "../../train/generation/plan.ts";
import { checkModelOrAdapter, loadModelOrAdapter } from "../../train/models/load_model.ts";
import { PlanError, planningOptions, planRun } from "../../train/plan.ts";
import { gpuTest } from "../gpu.ts";
import { DIGIT_PAIRS, runTask, writeCheckpoint, writeLines } from "../story/user.ts";
import { temporaryFolder } from "../tiny_model.ts";

const nothing = () => {};
const HOOKS = { log: nothing, progress: () => ({ update: nothing, finish: nothing }) };

/** A model, an adapter on it, pairs and texts. */
async function workspace(gpu: Gpu) {
  const folder = temporaryFolder();
  const at = (name: string) => join(folder, name);
  await writeCheckpoint(at("model"));
  const { model } = await loadModelOrAdapter(gpu, at("model"), { trainable: false });
  using adapted = addLora(model, { rank: 8, base: at("model") });
  await saveAdapter(at("adapter"), adapted);
  await writeLines(at("pairs.jsonl"), DIGIT_PAIRS);
  await Deno.writeTextFile(at("text.txt"), "12+34-5:".repeat(400));
  return { model: at("model"), adapter: at("adapter"), pairs: at("pairs.jsonl"), texts: at("text.txt") };
}

gpuTest(
  "the planned memory of an evaluation is what it takes, with an adapter and a reference too",
  async (gpu) => {
    const { model, adapter, pairs, texts } = await workspace(gpu);
    const cases = [
      ["preference", { model, data: pairs, batchTokens: 32 }],
      ["preference", { model: adapter, data: pairs, reference: model }],
      ["perplexity", { model: adapter, data: texts, batchTokens: 64, maxLength: 16 }],
      ["arithmetic", { model: adapter, limit: 20, batchTokens: 64 }],
    ] as const;
    const totals: number[] = [];
    for (const [task, raw] of cases) {
      const flags = parseFlags(evalFlagsSchema, { raw, source: { describe: (path) => path.join(".") } });
      const prepared = await prepareEvaluation(task, flags, HOOKS);
      const small = new Gpu(gpu.device, gpu.adapter);
      const plan = await planRun(planningOptions(small), ({ gpu }) => prepared.plan(gpu));
      await prepared.run(small, HOOKS, () => Promise.resolve());
      const { peakBytes } = small.stats().memory;
      small.buffers.destroy();
      // Texts and prompts are not read for the plan as they fall into batches, and the pool keeps a buffer of every size
      // that it met: the last windows of a text may add a few percent.
      const [least, most] = task === "preference" ? [1, 1] : [0.95, 1.2];
      const share = plan.totalBytes / peakBytes;
      assert.ok(share >= least && share <= most, `${task} ${JSON.stringify(raw)}: ${share} of ${peakBytes}`);
      totals.push(plan.totalBytes);
      assert.throws(
        () => refuseEvaluationOverBudget({ ...plan, budgetBytes: plan.totalBytes - 1 }),
        (error) => error instanceof PlanError && /^Cannot evaluate: .* --batch-tokens/.test(error.message),
      );
      refuseEvaluationOverBudget({ ...plan, budgetBytes: plan.totalBytes });
    }
    assert.ok(totals[1] > totals[0]);
  },
);

gpuTest("the planned memory of a generation counts its adapter", async (gpu) => {
  const { model, adapter } = await workspace(gpu);
  const totals: number[] = [];
  for (const folder of [model, adapter]) {
    const { folders, config } = await checkModelOrAdapter(folder);
    const small = new Gpu(gpu.device, gpu.adapter);
    const prompt = [1, 2, 3];
    const plan = await planGeneration(planningOptions(small), {
      ...{ config, folders, model: { trainable: false }, promptTokens: 3, reading: "ids" },
      size: { sequences: 1, positions: 3 + 8 - 1 },
    });
    {
      using loaded = (await loadModelOrAdapter(small, folders, { trainable: false })).model;
      await generate(loaded, [prompt], { maxNewTokens: 8, batchSize: 1 });
    }
    assert.equal(plan.totalBytes, small.stats().memory.peakBytes, folder);
    small.buffers.destroy();
    totals.push(plan.totalBytes);
  }
  assert.ok(totals[1] > totals[0], `${totals}`);
});

gpuTest("eval refuses what its budget does not hold, before weights are read", async (gpu) => {
  const { model, pairs } = await workspace(gpu);
  const args = ["--model", model, "--data", pairs, "--memory-budget-gb", "0.001"];
  const { code, out, error } = await runTask("eval", args);
  assert.deepEqual([code, out], [1, ""]);
  assert.match(error, /Cannot evaluate: expected at most .* of GPU memory \(the budget\), found .* planned/);
});
