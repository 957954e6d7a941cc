/**
 * Runs of the pairwise loss for tests, and the pairs they run on.
 *
 * @module
 */
import type { Gpu } from "../../engine/gpu.ts";
import {
  type MicroBatch,
  pairLoss,
  type PairLossOptions,
  type SpoPenaltyOptions,
  spoState,
} from "../../engine/ops/pair_loss.ts";
import { Tape } from "../../engine/tape.ts";
import { empty, fromHost, release, type Tensor, upload } from "../../engine/tensor.ts";
import { METRICS_STRIDE } from "../../shaders/pair_loss.ts";
import { readAll } from "../gpu.ts";
import type { PairLossInputs, PairLossKind } from "../reference/pair_loss.ts";
import { integers, normals, seededRandom } from "../reference/random.ts";

/** A step of one micro-batch. */
export const WHOLE = (pairs: number): MicroBatch => ({ pairsInBatch: pairs, isFirst: true, isLast: true });

/** Runs pair losses: as the micro-batches of one step, or each as a step of its own. Gradients are dL/dlogps. */
export async function runSteps(
  gpu: Gpu,
  batches: readonly PairLossInputs[],
  options: {
    pairOptions: PairLossOptions;
    spo: SpoPenaltyOptions;
    split?: boolean;
    state?: Tensor;
    metrics?: Tensor;
    metricsRow?: number;
    promptTokens?: number;
  },
): Promise<
  {
    found: { loss: number; dLogps: Float32Array; dPrompt?: Float32Array; dPlain?: Float32Array }[];
    metrics: Float32Array;
  }
> {
  const { pairOptions, spo, split = false } = options;
  const state = options.state ?? spoState(gpu, { lambda: 0 });
  const metrics = options.metrics ?? empty(gpu, [METRICS_STRIDE], { owner: "caller" });
  const pairsInBatch = batches.reduce((total, { s }) => total + s.length / 2, 0);
  const tokensInBatch = batches.reduce((total, { lengths }) => total + chosenTokens(lengths), 0);
  const read: Tensor[] = [metrics];
  for (const [index, batch] of batches.entries()) {
    const { s, ref, lengths, margins, weights, promptLogps, plain, plainRef } = batch;
    const shape = [s.length];
    const grad = fromHost(gpu, new Float32Array(s.length), { shape });
    const logps = fromHost(gpu, Float32Array.from(s), { shape });
    const one = fromHost(gpu, Float32Array.of(1), { shape: [1] });
    const optional = (values?: ArrayLike<number>) => values && upload(gpu, Float32Array.from(values));
    const prompts = promptLogps && fromHost(gpu, Float32Array.from(promptLogps), { shape: [s.length / 2] });
    const dPrompt = prompts && fromHost(gpu, new Float32Array(s.length / 2), { shape: prompts.shape });
    const whole = plain && fromHost(gpu, Float32Array.from(plain), { shape });
    const dPlain = whole && fromHost(gpu, new Float32Array(s.length), { shape });
    const tape = new Tape(gpu);
    const loss = tape.keep(pairLoss({ ...logps, requiresGrad: true, grad }, {
      reference: upload(gpu, Float32Array.from(ref)),
      lengths: upload(gpu, Float32Array.from(lengths)),
      ...{ margins: optional(margins), weights: optional(weights), promptTokens: options.promptTokens },
      ...(prompts ? { promptLogps: { ...prompts, requiresGrad: true, grad: dPrompt } } : {}),
      ...(whole
        ? {
          plain: {
            logps: { ...whole, requiresGrad: true, grad: dPlain },
            reference: upload(gpu, Float32Array.from(plainRef!)),
          },
        }
        : {}),
      metrics,
      metricsRow: options.metricsRow ?? 0,
      state,
      pairLoss: pairOptions,
      chosenTokens: split ? tokensInBatch : chosenTokens(lengths),
      spo,
      microBatch: split
        ? { pairsInBatch, isFirst: index === 0, isLast: index === batches.length - 1 }
        : WHOLE(s.length / 2),
    }));
    tape.backward([{ tensor: loss, gradient: one }]);
    release(logps);
    release(one);
    if (prompts) release(prompts);
    if (whole) release(whole);
    read.push(loss, grad, dPrompt ?? grad, dPlain ?? grad);
  }
  const [foundMetrics, ...values] = await readAll(gpu, read);
  for (const tensor of new Set(read)) if (tensor !== options.metrics) release(tensor);
  if (!options.state) release(state);
  return {
    metrics: foundMetrics,
    found: batches.map(({ promptLogps, plain }, index) => ({
      loss: values[4 * index][0],
      dLogps: values[4 * index + 1],
      ...(promptLogps ? { dPrompt: values[4 * index + 2] } : {}),
      ...(plain ? { dPlain: values[4 * index + 3] } : {}),
    })),
  };
}

/** Tokens of the chosen completions. */
export function chosenTokens(lengths: ArrayLike<number>): number {
  return Array.from(lengths).slice(0, lengths.length / 2).reduce((sum, length) => sum + length, 0);
}

/** Pairs whose numbers are f32: completions of 4 to 11 tokens at about -4 nats a token. */
export function randomPairs(
  P: number,
  seed: number,
  kind: PairLossKind = { loss: "dpo", beta: 0.1 },
): PairLossInputs & { lengths: Int32Array } {
  const random = seededRandom(seed);
  const lengths = integers(random, { length: 2 * P, low: 4, high: 12 });
  const ref = normals(random, { length: 2 * P, scale: 3 }).map((value, i) =>
    Math.fround(value - 4 * lengths[i])
  );
  // A pair's exponential would drown the others' digits.
  const scale = "divergence" in kind ? 1 : 5;
  const s = normals(random, { length: 2 * P, scale }).map((value, i) => Math.fround(ref[i] + value));
  return { s, ref, lengths };
}
