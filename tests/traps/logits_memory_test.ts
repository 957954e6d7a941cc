import assert from "node:assert/strict";
import { Gpu } from "../../engine/gpu.ts";
import { NO_PENALTY } from "../../engine/ops/pair_loss.ts";
import { PAIR_LOSSES } from "../../train/losses/registry.ts";
import { preferenceObjective } from "../../train/objective.ts";
import { referenceLogps } from "../../train/reference.ts";
import { train } from "../../train/trainer.ts";
import { gpuTest } from "../gpu.ts";
import { integers, seededRandom } from "../reference/random.ts";
import { tinyModel } from "../tiny_model.ts";

const [V, PAIRS, COMPLETION] = [65_536, 8, 32];

gpuTest(
  "a whole step over 65,536 ids, reference and update included, never holds its logits",
  async (gpu) => {
    const random = seededRandom(1);
    const ids = (length: number) => [...integers(random, { length, high: V })];
    const source = { file: "made.jsonl" };
    const pairs = Array.from({ length: PAIRS }, () => {
      const promptIds = ids(4);
      const side = () => ({ promptIds, completionIds: ids(COMPLETION), source });
      return { chosen: side(), rejected: side(), source };
    });
    const own = new Gpu(gpu.device, gpu.adapter);
    {
      const config = { vocab_size: V, hidden_size: 8, max_position_embeddings: 64 };
      using model = tinyModel(own, { config });
      using objective = preferenceObjective(model, {
        ...{ pairs, reference: await referenceLogps(model, pairs), loss: PAIR_LOSSES.dpo.resolve({}) },
        ...{ spoAt: () => NO_PENALTY, lambda: 0 },
      });
      await train(objective, {
        optimizer: { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, maxGradNorm: 1 },
        schedule: { kind: "constant", learningRate: 1e-3, warmupSteps: 0, maxSteps: 2 },
        ...{ batchSize: PAIRS, seed: 1, logEvery: 1 },
      });
    }
    const { peakBytes } = own.stats().memory;
    own.queue.destroy();
    own.buffers.destroy();
    const logitBytes = 2 * PAIRS * COMPLETION * V * 4;
    assert.ok(peakBytes < logitBytes / 2, `${peakBytes} bytes, of logits alone ${logitBytes}`);
  },
);
