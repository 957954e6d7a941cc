import assert from "node:assert/strict";
import {
  pairWeights,
  reportStatistics,
  sequenceStatistics,
  type StatisticsMetric,
} from "../../engine/ops/sequence_statistics.ts";
import type { Gpu } from "../../engine/gpu.ts";
import { hostSequenceIndex } from "../../engine/ops/sequence_logps.ts";
import { type Shape, ShapeError, sizeOf } from "../../engine/shape.ts";
import { fromHost, release, scope, type Tensor, upload } from "../../engine/tensor.ts";
import { gpuTest, LAYOUTS, readAll } from "../gpu.ts";
import { normals, seededRandom } from "../reference/random.ts";
import * as reference from "../reference/sequence_statistics.ts";
import { assertClose } from "./check_op.ts";

const NAMES: readonly StatisticsMetric[] = [
  "entropy",
  "mean_token_accuracy",
  "logits/chosen",
  "logits/rejected",
];

/** Statistics of sequences of these lengths, in f32 and f64; rows after the last one are NaN and must not be read. */
function makeInputs(lengths: readonly number[]) {
  const random = seededRandom(lengths.length);
  const index = hostSequenceIndex(lengths, { length: lengths.reduce((a, b) => a + b, 0) + 3 });
  const M = index.offsets[lengths.length];
  const logps = Float32Array.from({ length: M + 3 }, (_, m) => m < M ? -3 * random() : NaN);
  const statistics = Float32Array.from(normals(random, { length: 4 * (M + 3) }), (value, i) => {
    if (i >= 4 * M) return NaN;
    // Entropies, logits, hits, logs of sums of squares.
    return [Math.abs(value), 3 * value, Number(value > 0), -2 * random()][i % 4];
  });
  const inputs = {
    logps: Float64Array.from(logps.subarray(0, M)),
    statistics: Float64Array.from(statistics.subarray(0, 4 * M)),
    sequenceOffsets: index.offsets,
  };
  const place = (gpu: Gpu) => ({
    logps: upload(gpu, logps),
    statistics: upload(gpu, statistics, { shape: [M + 3, 4] }),
    offsets: upload(gpu, index.offsets),
  });
  return { inputs, place, M };
}

/** Runs something that makes a tensor, and reads it. */
async function valuesOf(gpu: Gpu, shape: Shape, make: () => Tensor): Promise<Float32Array> {
  const kept = fromHost(gpu, new Float32Array(sizeOf(shape)), { shape });
  scope(gpu, () => gpu.queue.copy(make().range, kept.range));
  const [found] = await readAll(gpu, [kept]);
  release(kept);
  return found;
}

/** Runs something that writes to metrics that hold 7s, and reads them. */
async function metricsOf(gpu: Gpu, write: (metrics: Tensor) => void): Promise<Float32Array> {
  const metrics = fromHost(gpu, new Float32Array(8).fill(7), { shape: [8] });
  scope(gpu, () => write(metrics));
  const [found] = await readAll(gpu, [metrics]);
  release(metrics);
  return found;
}

// More sequences than lanes, more rows than lanes, and an empty sequence, as padding has.
for (const lengths of [[1, 1], [5, 0, 130, 64], Array.from({ length: 140 }, (_, s) => 1 + s % 7)]) {
  const S = lengths.length;
  const tokens = (of: (s: number) => boolean) => lengths.reduce((sum, n, s) => sum + (of(s) ? n : 0), 0);

  gpuTest(`statistics of ${S} sequences: sums and means of both sides`, async (gpu) => {
    const { inputs, place } = makeInputs(lengths);
    const isChosen = (s: number) => s < S / 2;
    const expected = reference.metrics(inputs, isChosen);
    const found = await metricsOf(gpu, (metrics) => {
      const { offsets, ...rows } = place(gpu);
      reportStatistics(sequenceStatistics(rows, offsets), {
        ...{ names: NAMES, chosen: S / 2, metric: { metrics, index: 2, accumulate: false } },
        tokens: { chosen: tokens(isChosen), rejected: tokens((s) => !isChosen(s)) },
      });
    });
    assertClose(found, [7, 7, ...NAMES.map((name) => expected[name]), 7, 7], { what: "metrics" });
    const sums = await valuesOf(gpu, [S, 4], () => {
      const { offsets, ...rows } = place(gpu);
      return sequenceStatistics(rows, offsets);
    });
    assertClose(sums, reference.sums(inputs), { what: "sums" });
  }, { layouts: LAYOUTS });

  gpuTest(`statistics of ${S} labelled sequences add to what is there`, async (gpu) => {
    const { inputs, place } = makeInputs(lengths);
    const isChosen = (s: number) => s % 3 === 0;
    const desirable = Float32Array.from(lengths, (_, s) => Number(isChosen(s)));
    const names = ["logits/rejected", "entropy"] as const;
    const expected = reference.metrics(inputs, isChosen);
    const found = await metricsOf(gpu, (metrics) => {
      const { offsets, ...rows } = place(gpu);
      reportStatistics(sequenceStatistics(rows, offsets), {
        ...{ names, chosen: upload(gpu, desirable), metric: { metrics, index: 0, accumulate: true } },
        tokens: { chosen: tokens(isChosen), rejected: tokens((s) => !isChosen(s)) },
      });
    });
    const rest = [7, 7, 7, 7, 7, 7];
    assertClose(found, [...names.map((name) => 7 + expected[name]), ...rest], { what: "metrics" });
  }, { layouts: LAYOUTS });

  if (lengths.includes(0)) continue;
  gpuTest(`WPO's weights of ${S / 2} pairs`, async (gpu) => {
    const { inputs, place } = makeInputs(lengths);
    const found = await valuesOf(gpu, [S / 2], () => {
      const { offsets, ...rows } = place(gpu);
      return pairWeights(sequenceStatistics(rows, offsets), offsets);
    });
    assertClose(found, reference.pairWeights(inputs), { what: "weights", atol: 0, rtol: 1e-5 });
  }, { layouts: LAYOUTS });
}

gpuTest("a side without tokens has the mean 0", async (gpu) => {
  const { inputs, place, M } = makeInputs([5, 2]);
  const found = await metricsOf(gpu, (metrics) => {
    const { offsets, ...rows } = place(gpu);
    reportStatistics(sequenceStatistics(rows, offsets), {
      ...{ names: NAMES, chosen: 2, metric: { metrics, index: 0, accumulate: false } },
      tokens: { chosen: M, rejected: 0 },
    });
  });
  const { entropy, mean_token_accuracy, "logits/chosen": logits } = reference.metrics(inputs, () => true);
  assertClose(found.subarray(0, 4), [entropy, mean_token_accuracy, logits, 0], { what: "metrics" });
});

gpuTest("statistics of other rows, labels for other sequences and sums of no pairs are refused", (gpu) => {
  const { place } = makeInputs([2, 3, 1]);
  scope(gpu, () => {
    const { offsets, logps, statistics } = place(gpu);
    const wrong = upload(gpu, new Float32Array(8), { shape: [2, 4] });
    assert.throws(
      () => sequenceStatistics({ logps, statistics: wrong }, offsets),
      new ShapeError("Cannot run sequence_statistics: expected statistics of shape [9, 4], found [2, 4]"),
    );
    const sums = sequenceStatistics({ logps, statistics }, offsets);
    const metric = { metrics: upload(gpu, new Float32Array(4)), index: 0, accumulate: false };
    assert.throws(
      () =>
        reportStatistics(sums, {
          ...{ names: NAMES, chosen: upload(gpu, new Float32Array(2)), metric },
          tokens: { chosen: 1, rejected: 1 },
        }),
      new ShapeError("Cannot run statistics_metrics: expected chosen of shape [3], found [2]"),
    );
    assert.throws(
      () => pairWeights(sums, offsets),
      new ShapeError("Cannot run pair_weights: expected the sums of pairs, found those of 3"),
    );
  });
});
