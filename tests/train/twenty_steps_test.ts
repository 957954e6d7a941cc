/**
 * The whole fast path against the simplest one there is: 20 optimizer steps of a tiny model in plain f64, its gradients
 * central differences of the loss, so that no backward is trusted.
 *
 * @module
 */
import { NO_PENALTY } from "../../engine/ops/pair_loss.ts";
import type { EncodedCompletion } from "../../train/data/encode.ts";
import { PAIR_LOSSES } from "../../train/losses/registry.ts";
import type { Model } from "../../train/models/model.ts";
import { type Objective, preferenceObjective, sftObjective } from "../../train/objective.ts";
import { referenceLogps } from "../../train/reference.ts";
import { train } from "../../train/trainer.ts";
import { gpuTest, LAYOUTS } from "../gpu.ts";
import { assertClose } from "../ops/check_op.ts";
import { forward as adamw } from "../reference/adamw.ts";
import { forward as clip } from "../reference/clip.ts";
import type { LlamaConfig } from "../../train/models/llama_config.ts";
import * as llama from "../reference/llama.ts";
import { sum, tinyModel } from "../tiny_model.ts";

const STEPS = 20;
const SETTINGS = { beta1: 0.9, beta2: 0.99, weightDecay: 0.1 };
// Large enough that an update is no sign of a vanishing gradient, which rounding would flip.
const EPS = 1e-3;
const LEARNING_RATE = 1e-2;
const MAX_GRAD_NORM = 1;

const source = { file: "made.jsonl" };
const side = (promptIds: number[], completionIds: number[]) => ({ promptIds, completionIds, source });
const PAIRS = [
  { chosen: side([1, 2, 3], [4, 5]), rejected: side([1, 2, 3], [6]), source },
  { chosen: side([7], [0]), rejected: side([7], [2, 1, 3]), source },
];
const COMPLETIONS = PAIRS.map(({ chosen }) => chosen);

/** A loss of the model in f64. */
type Loss = (parameters: llama.LlamaParameters) => number;

/** Summed log-probability of a completion. */
function logp(
  parameters: llama.LlamaParameters,
  config: llama.LlamaConfig,
  { promptIds, completionIds }: EncodedCompletion,
): number {
  const inputIds = [...promptIds, ...completionIds];
  const inputs = { parameters, inputIds, sequenceOffsets: [0, inputIds.length] };
  const { logits } = llama.forward(inputs, config);
  return sum(completionIds.map((id, i) => {
    const start = (promptIds.length - 1 + i) * config.vocab_size;
    const row = logits.subarray(start, start + config.vocab_size);
    return row[id] - Math.log(row.reduce((total, logit) => total + Math.exp(logit), 0));
  }));
}

async function readParameters(model: Model): Promise<llama.LlamaParameters> {
  const parameters: llama.LlamaParameters = new Map();
  for (const name of model.parameters.shapes.keys()) {
    parameters.set(name, Float64Array.from(await model.parameters.read(name)));
  }
  return parameters;
}

function gradientOf(loss: Loss, parameters: llama.LlamaParameters): Map<string, Float64Array> {
  const step = 1e-5;
  return new Map(Array.from(parameters, ([name, values]) => [
    name,
    values.map((value, i) => {
      values[i] = value + step;
      const above = loss(parameters);
      values[i] = value - step;
      const below = loss(parameters);
      values[i] = value;
      return (above - below) / (2 * step);
    }),
  ]));
}

/** Losses of all steps; `parameters` are updated in place. Matrices decay, vectors do not. */
function trainSimply(loss: Loss, parameters: llama.LlamaParameters, isMatrix: (name: string) => boolean) {
  const moments = new Map<string, { m: Float64Array; v: Float64Array }>(
    Array.from(parameters, ([name, { length }]) => [name, {
      m: new Float64Array(length),
      v: new Float64Array(length),
    }]),
  );
  return Array.from({ length: STEPS }, (_, index) => {
    const value = loss(parameters);
    const gradients = gradientOf(loss, parameters);
    const clipped = clip({ gradients: [...gradients.values()] }, { maxNorm: MAX_GRAD_NORM }).gradients;
    [...parameters].forEach(([name, parameter], position) => {
      const updated = adamw({ parameter, gradient: clipped[position], ...moments.get(name)! }, {
        ...SETTINGS,
        ...{ length: parameter.length, learningRate: LEARNING_RATE, eps: EPS, step: index + 1 },
        weightDecay: isMatrix(name) ? SETTINGS.weightDecay : 0,
      });
      parameter.set(updated.parameter);
      moments.set(name, { m: Float64Array.from(updated.m), v: Float64Array.from(updated.v) });
    });
    return value;
  });
}

const OBJECTIVES: Record<string, {
  make: (model: Model) => Promise<Objective>;
  loss: (config: llama.LlamaConfig, start: llama.LlamaParameters) => Loss;
}> = {
  sft: {
    make: (model) => Promise.resolve(sftObjective(model, COMPLETIONS)),
    loss: (config) => (parameters) =>
      -sum(COMPLETIONS.map((completion) => logp(parameters, config, completion))) /
      sum(COMPLETIONS.map(({ completionIds }) => completionIds.length)),
  },
  dpo: {
    make: async (model) =>
      preferenceObjective(model, {
        ...{ pairs: PAIRS, reference: await referenceLogps(model, PAIRS), lambda: 0 },
        loss: PAIR_LOSSES.dpo.resolve({ beta: 0.5 }),
        spoAt: () => NO_PENALTY,
      }),
    loss: (config, start) => {
      const margin = (parameters: llama.LlamaParameters, pair: typeof PAIRS[number]) =>
        logp(parameters, config, pair.chosen) - logp(parameters, config, pair.rejected);
      const reference = PAIRS.map((pair) => margin(start, pair));
      return (parameters) =>
        sum(PAIRS.map((pair, i) => Math.log1p(Math.exp(-0.5 * (margin(parameters, pair) - reference[i]))))) /
        PAIRS.length;
    },
  },
};

/** What the simple model comes to; computed once for both layouts, since every gradient takes hundreds of losses. */
const simple = new Map<string, { losses: number[]; weights: llama.LlamaParameters }>();

/** One layer with the least sizes that have groups of heads, so that the f64 model takes seconds. */
const CONFIG = { vocab_size: 8, hidden_size: 8, intermediate_size: 4, tie_word_embeddings: true };

for (const [name, { make, loss: lossOf }] of Object.entries(OBJECTIVES)) {
  gpuTest(
    `${name}: 20 steps of the fast path agree with a model in f64 without any backward`,
    async (gpu) => {
      using model = tinyModel(gpu, { config: CONFIG });
      const { parameters } = model;
      const config = model.config as LlamaConfig;
      if (!simple.has(name)) {
        const weights = await readParameters(model);
        const start = new Map(Array.from(weights, ([key, values]) => [key, values.slice()]));
        const isMatrix = (key: string) => parameters.shapes.get(key)!.length === 2;
        simple.set(name, { losses: trainSimply(lossOf(config, start), weights, isMatrix), weights });
      }
      const expected = simple.get(name)!;
      using objective = await make(model);
      const losses: number[] = [];
      await train(objective, {
        optimizer: { ...SETTINGS, eps: EPS, maxGradNorm: MAX_GRAD_NORM },
        schedule: { kind: "constant", learningRate: LEARNING_RATE, warmupSteps: 0, maxSteps: STEPS },
        ...{ batchSize: PAIRS.length, seed: 1, logEvery: 1 },
        onLog: (record) => void losses.push(Number(record.loss)),
      });
      assertClose(losses, expected.losses, { what: `${name} losses`, atol: 2e-5, rtol: 2e-5 });
      for (const [key, values] of expected.weights) {
        // Weights have magnitude 0.3, and moved by 0.1.
        assertClose(await parameters.read(key), values, { what: key, atol: 1e-5, rtol: 1e-5 });
      }
    },
    { layouts: LAYOUTS },
  );
}
