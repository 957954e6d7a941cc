import assert from "node:assert/strict";
import { NO_PENALTY } from "../../engine/ops/pair_loss.ts";
import type { Gpu } from "../../engine/gpu.ts";
import { PAIR_LOSSES } from "../../train/losses/registry.ts";
import type { MetricsRecord } from "../../train/metrics.ts";
import { preferenceObjective } from "../../train/objective.ts";
import { referenceLogps } from "../../train/reference.ts";
import { train } from "../../train/trainer.ts";
import { gpuTest } from "../gpu.ts";
import { randomPairs, tinyModel } from "../tiny_model.ts";

const PAIRS = randomPairs(6, 11);

/** DPO on a GPT-2 whose config asks for so much dropout. */
async function run(gpu: Gpu, dropout: number): Promise<MetricsRecord[]> {
  const sizes = { model_type: "gpt2", n_embd: 16, n_head: 2, n_layer: 2, n_positions: 32, vocab_size: 16 };
  const ids = { bos_token_id: 14, eos_token_id: 15 };
  const config = { ...sizes, ...ids, resid_pdrop: dropout, embd_pdrop: dropout, attn_pdrop: dropout };
  using model = tinyModel(gpu, { config });
  using objective = preferenceObjective(model, {
    ...{ pairs: PAIRS, reference: await referenceLogps(model, PAIRS), loss: PAIR_LOSSES.dpo.resolve({}) },
    ...{ spoAt: () => NO_PENALTY, lambda: 0 },
  });
  const records: MetricsRecord[] = [];
  let clock = 0;
  await train(objective, {
    optimizer: { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, maxGradNorm: 1 },
    schedule: { kind: "constant", learningRate: 1e-2, warmupSteps: 0, maxSteps: 3 },
    ...{ batchSize: PAIRS.length, seed: 1, logEvery: 1, now: () => clock += 1000 },
    onLog: (record) => void records.push(record),
  });
  return records;
}

gpuTest(
  "dropout that a config asks for is off: rewards of policy = reference are zero, runs repeat",
  async (gpu) => {
    const records = await run(gpu, 0.5);
    for (const name of ["rewards/chosen", "rewards/rejected"]) {
      assert.ok(Math.abs(Number(records[0][name])) < 1e-5, `${name} ${records[0][name]}`);
    }
    assert.deepEqual(records, await run(gpu, 0));
  },
);
