import assert from "node:assert/strict";
import type { Gpu, GpuStats } from "../../engine/gpu.ts";
import { adamw, CLIP_STATE, gradNorm } from "../../engine/ops/adamw.ts";
import { add } from "../../engine/ops/add.ts";
import { attention } from "../../engine/ops/attention.ts";
import { embedding } from "../../engine/ops/embedding.ts";
import { gatherRows, rowIndex } from "../../engine/ops/gather_rows.ts";
import { packColumns } from "../../engine/ops/pack_columns.ts";
import { sequenceBounds } from "../../engine/ops/sequence_bounds.ts";
import { matmul } from "../../engine/ops/matmul.ts";
import { NO_PENALTY, pairLoss, spoState } from "../../engine/ops/pair_loss.ts";
import { rmsNorm } from "../../engine/ops/rms_norm.ts";
import { rope, ropeTable } from "../../engine/ops/rope.ts";
import { sequenceLogps } from "../../engine/ops/sequence_logps.ts";
import { swiglu } from "../../engine/ops/swiglu.ts";
import { tokenLogps } from "../../engine/ops/token_logps.ts";
import { createParameters, type Parameters } from "../../engine/parameters.ts";
import { Tape } from "../../engine/tape.ts";
import { fromHost, release, type Tensor, toHost, upload } from "../../engine/tensor.ts";
import { METRICS_STRIDE } from "../../shaders/pair_loss.ts";
import { gpuTest, LAYOUTS } from "../gpu.ts";
import { integers, normals, seededRandom } from "../reference/random.ts";

const V = 97;
const C = 16;
const HEAD_DIM = 8;
/** Room for this many tokens, and labelled tokens, whatever a batch has. */
const CAPACITY = 64;

const SHAPES = new Map([
  ["embed", [V, C]],
  ["norm", [C]],
  ["q", [C, C]],
  ["k", [HEAD_DIM, C]],
  ["v", [HEAD_DIM, C]],
  ["gate", [24, C]],
  ["up", [24, C]],
  ["down", [C, 24]],
]);

/** One batch: two pairs, chosen then rejected, of the given lengths; all but each first token are scored. */
interface Batch {
  ids: Uint32Array;
  offsets: Uint32Array;
  positions: Uint32Array;
  rows: Uint32Array;
  rowOffsets: Uint32Array;
}

function batchOf(lengths: readonly number[], seed: number): Batch {
  const offsets = [0];
  const rowOffsets = [0];
  const positions: number[] = [];
  const rows: number[] = [];
  for (const length of lengths) {
    for (let i = 0; i < length; i++) {
      if (i + 1 < length) rows.push(positions.length);
      positions.push(i);
    }
    offsets.push(positions.length);
    rowOffsets.push(rows.length);
  }
  const ids = Uint32Array.from(integers(seededRandom(seed), { length: positions.length, high: V }));
  const from = (values: number[]) => Uint32Array.from(values);
  return {
    ids,
    offsets: from(offsets),
    positions: from(positions),
    rows: from(rows),
    rowOffsets: from(rowOffsets),
  };
}

/** What lives as long as the run. */
interface Run {
  parameters: Parameters;
  moments: Tensor[];
  table: Tensor;
  state: Tensor;
  metrics: Tensor;
  clip: Tensor;
  one: Tensor;
}

/** A one-layer Llama of one block, its DPO loss, the gradients and the update: as a training step does it. */
function step(gpu: Gpu, run: Run, batch: Batch): void {
  const { parameters, table, state, metrics } = run;
  const weight = (name: string) => parameters.get(name);
  const linear = (x: Tensor, name: string) => matmul(x, weight(name), { kind: "NT" });
  parameters.zeroGradients();
  const tape = new Tape(gpu);
  const bounds = sequenceBounds(gpu, { segmentOffsets: batch.offsets }, { capacity: CAPACITY });
  const positions = upload(gpu, batch.positions, { capacity: CAPACITY });
  const x = embedding(parameters.shards("embed"), batch.ids, { capacity: CAPACITY });
  const normed = rmsNorm(x, weight("norm"), { eps: 1e-5 });
  const q = rope(linear(normed, "q"), positions, table);
  const k = rope(linear(normed, "k"), positions, table);
  const qkv = packColumns([q, k, linear(normed, "v")]);
  const attended = add(x, attention(qkv, { headDim: HEAD_DIM, heads: C / HEAD_DIM, kvHeads: 1, bounds }));
  const again = rmsNorm(attended, weight("norm"), { eps: 1e-5 });
  const hidden = add(attended, linear(swiglu(linear(again, "gate"), linear(again, "up")), "down"));
  const capacity = { tokens: CAPACITY, rows: CAPACITY };
  const index = rowIndex(gpu, batch.rows, { tokens: batch.ids.length, capacity });
  const scored = gatherRows(hidden, index);
  const labels = batch.rows.map((row) => batch.ids[row + 1]);
  const sums = sequenceLogps(tokenLogps(scored, parameters.shards("embed"), labels), batch.rowOffsets);
  const lengths = Float32Array.from(batch.rowOffsets.subarray(1), (end, s) => end - batch.rowOffsets[s]);
  const loss = pairLoss(sums, {
    reference: upload(gpu, new Float32Array(lengths.length)),
    lengths: upload(gpu, lengths),
    metrics,
    metricsRow: 0,
    state,
    pairLoss: { loss: "dpo", beta: 0.1, option: 0 },
    spo: { ...NO_PENALTY, penalty: "linear", lambda: 0.5, vStar: 1 },
    microBatch: { pairsInBatch: lengths.length / 2, isFirst: true, isLast: true },
  });
  tape.backward([{ tensor: loss, gradient: run.one }]);
  update(run);
  gpu.queue.submit();
}

function update({ parameters, clip, metrics, moments: [moment1, moment2] }: Run): void {
  const [{ weight, gradient, decayElements }] = parameters.blocks;
  gradNorm([gradient!], clip, {
    maxNorm: 1,
    metric: { metrics, index: METRICS_STRIDE - 1, accumulate: false },
  });
  adamw({ weight, gradient: gradient!, moment1, moment2 }, clip, {
    learningRate: 1e-2,
    beta1: 0.9,
    beta2: 0.999,
    eps: 1e-8,
    weightDecay: 0.1,
    step: 1,
    decayElements,
  });
}

function startRun(gpu: Gpu): Run {
  const parameters = createParameters(gpu, SHAPES, { trainable: true });
  const random = seededRandom(1);
  for (const [name, shape] of SHAPES) {
    const length = shape.reduce((product, extent) => product * extent, 1);
    parameters.write(name, Float32Array.from(normals(random, { length, scale: 0.3 })));
  }
  const { shape } = parameters.blocks[0].weight;
  const zeros = (length: number) => fromHost(gpu, new Float32Array(length), { shape: [length] });
  return {
    parameters,
    moments: [zeros(shape[0]), zeros(shape[0])],
    table: ropeTable(gpu, { positions: CAPACITY, headDim: HEAD_DIM, theta: 10000 }),
    state: spoState(gpu, { lambda: 0 }),
    metrics: zeros(METRICS_STRIDE),
    clip: zeros(CLIP_STATE.size),
    one: fromHost(gpu, Float32Array.of(1), { shape: [1] }),
  };
}

function endRun({ parameters, moments, table, state, metrics, clip, one }: Run): void {
  parameters[Symbol.dispose]();
  for (const tensor of [...moments, table, state, metrics, clip, one]) release(tensor);
}

/** What may not grow. */
function countersOf({ memory, pipelines, bindGroups, submits, readbacks }: GpuStats) {
  return { created: memory.created, used: memory.usedBytes, pipelines, bindGroups, submits, readbacks };
}

gpuTest(
  "from step three on a step allocates no buffer, pipeline or bind group, and submits once",
  async (gpu) => {
    const run = startRun(gpu);
    // Batches of other lengths and ids: what is reserved is the same.
    const batches = [[9, 12, 8, 11], [3, 4, 5, 6], [16, 16, 16, 16], [7, 2, 9, 12], [15, 3, 3, 4], [
      9,
      12,
      8,
      11,
    ]]
      .map((lengths, index) => batchOf(lengths, index));
    const seen = batches.map((batch) => {
      step(gpu, run, batch);
      return countersOf(gpu.stats());
    });
    for (let index = 2; index < seen.length; index++) {
      assert.deepEqual(
        seen[index],
        { ...seen[1], submits: seen[1].submits + index - 1 },
        `step ${index + 1}`,
      );
    }
    const metrics = await toHost(run.metrics);
    assert.ok(metrics.every(Number.isFinite), `${metrics}`);
    assert.ok(metrics[METRICS_STRIDE - 1] > 0, "there was a gradient");
    endRun(run);
  },
  { layouts: LAYOUTS },
);

gpuTest("six steps of one batch lower its loss, and do so bit for bit when run again", async (gpu) => {
  const batch = batchOf([9, 12, 8, 11], 5);
  const runs: number[][] = [];
  for (let turn = 0; turn < 2; turn++) {
    const run = startRun(gpu);
    const losses: number[] = [];
    for (let index = 0; index < 6; index++) {
      step(gpu, run, batch);
      losses.push((await toHost(run.metrics))[0]);
    }
    endRun(run);
    runs.push(losses);
  }
  assert.deepEqual(runs[1], runs[0]);
  assert.ok(runs[0][5] < runs[0][0], `losses ${runs[0]}`);
}, { layouts: LAYOUTS });
