/**
 * A tiny training that is the same in Deno and in a browser: this module runs in both.
 *
 * @module
 */
import { type Gpu, openGpu } from "../../engine/mod.ts";
import {
  createModel,
  createRandom,
  type EncodedPair,
  initializeModel,
  PAIR_LOSSES,
  parseModelConfig,
  parseSpoOptions,
  preferenceObjective,
  referenceLogps,
  spoPenaltyAt,
  train,
  type TrainSummary,
} from "../../train/browser.ts";

const STEPS = 10;
const VOCABULARY = 16;

/** How one training differs from another. */
interface Variation {
  /** Of weights and data order. */
  readonly seed: number;
  /** Told each loss as it is logged. */
  readonly onLoss?: (loss: number) => void | Promise<void>;
  readonly signal?: AbortSignal;
}

/** Trains ten steps of DPO with SPO's penalty from a seed, on pairs that it makes itself; all is disposed at its end. */
export async function trainTiny(gpu: Gpu, { seed, onLoss, signal }: Variation): Promise<TrainSummary> {
  const config = parseModelConfig({
    ...{ model_type: "llama", vocab_size: VOCABULARY, hidden_size: 16, intermediate_size: 32 },
    ...{ num_hidden_layers: 1, num_attention_heads: 4, num_key_value_heads: 2 },
  }, { file: "ten steps" });
  using model = createModel(gpu, config, { trainable: true });
  initializeModel(model, createRandom(seed));
  const pairs = makePairs(16);
  const spo = parseSpoOptions({ solver: "penalty" });
  using objective = preferenceObjective(model, {
    pairs,
    reference: await referenceLogps(model, pairs),
    loss: PAIR_LOSSES.dpo.resolve({ beta: 0.5 }),
    spoAt: (step) => spoPenaltyAt(spo, step, STEPS),
    lambda: spo.lambda,
  });
  return await train(objective, {
    optimizer: { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0.01, maxGradNorm: 1 },
    schedule: { kind: "cosine", learningRate: 1e-2, warmupSteps: 2, maxSteps: STEPS },
    ...{ batchSize: 8, seed, logEvery: 1, signal },
    onLog: (record) => onLoss?.(Number(record.loss)),
  });
}

/** What ten steps brought. */
export interface TenSteps {
  /** The driver's name of the device. */
  readonly adapter: string;
  /** One a step. */
  readonly losses: readonly number[];
  /** Bytes still in use on the device when all was disposed. */
  readonly leftBytes: number;
}

/** Trains on a device of its own. */
export async function trainTenSteps({ seed }: { seed: number } = { seed: 1 }): Promise<TenSteps> {
  using gpu = await openGpu();
  const losses: number[] = [];
  await trainTiny(gpu, { seed, onLoss: (loss) => void losses.push(loss) });
  return { adapter: gpu.adapter.name, losses, leftBytes: gpu.stats().memory.usedBytes };
}

/** Random prompts; the rule to be learnt is that the chosen answer is shorter. */
function makePairs(count: number): EncodedPair[] {
  const random = createRandom(2);
  const ids = (length: number) => Array.from({ length }, () => random.nextUint32() % VOCABULARY);
  return Array.from({ length: count }, (_, index) => {
    const source = { file: "ten steps", index };
    const promptIds = ids(3 + index % 3);
    return {
      chosen: { promptIds, completionIds: ids(2), source },
      rejected: { promptIds, completionIds: ids(5), source },
      source,
    };
  });
}
