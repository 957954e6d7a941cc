/**
 * Runs a model on golden sequences: all logits of one, and the loss over several with its gradients.
 *
 * @module
 */
import { scaledSum } from "../../../engine/ops/scaled_sum.ts";
import { noGrad, Tape } from "../../../engine/tape.ts";
import { fromHost, release, scope, toHost } from "../../../engine/tensor.ts";
import { type PackedSequences, packSequences } from "../../../train/data/batch.ts";
import { uploadBatch } from "../../../train/models/batch_tensors.ts";
import { batchSequenceLogps, type Model, nextLogits } from "../../../train/models/model.ts";

/** Sequences of which every token but the first is to be predicted. */
export function packGolden(sequences: readonly (readonly number[])[]): PackedSequences {
  const source = { file: "golden.json" };
  return packSequences(
    sequences.map(([first, ...rest]) => ({ promptIds: [first], completionIds: rest, source })),
  );
}

/** `[T, V]` logits after every token of a sequence. */
export async function logitsOf(model: Model, ids: readonly number[]): Promise<Float32Array> {
  const { gpu } = model;
  // A token more, whose prediction is asked for, and which is not run itself.
  const { inputIds, positions, ...rest } = packGolden([[...ids, 0]]);
  const batch = {
    ...rest,
    inputIds: inputIds.slice(0, -1),
    positions: positions.slice(0, -1),
    segmentOffsets: Uint32Array.of(0, ids.length),
  };
  const [logits] = scope(gpu, () => noGrad(gpu, () => nextLogits(model, uploadBatch(model, batch))));
  const values = await toHost(logits);
  release(logits);
  return values;
}

/** Next tokens of sequences. */
export function labelsOf(sequences: readonly (readonly number[])[]): number {
  return sequences.reduce((total, ids) => total + ids.length - 1, 0);
}

/**
 * Adds the gradients of the cross-entropy over all next tokens to those in the model, and returns it: the mean, or a part
 * of one over `labels`.
 */
export async function lossWithGradients(
  model: Model,
  sequences: readonly (readonly number[])[],
  labels: number = labelsOf(sequences),
): Promise<number> {
  const { gpu } = model;
  const one = fromHost(gpu, Float32Array.of(1), { shape: [1] });
  const tape = new Tape(gpu);
  const sums = batchSequenceLogps(model, uploadBatch(model, packGolden(sequences)));
  const loss = tape.keep(scaledSum(sums, { scale: -1 / labels }));
  tape.backward([{ tensor: loss, gradient: one }]);
  const [value] = await toHost(loss);
  release(loss);
  release(one);
  return value;
}
