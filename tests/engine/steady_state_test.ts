import assert from "node:assert/strict";
import type { Gpu, GpuStats } from "../../engine/gpu.ts";
import { GraphCache } from "../../engine/graph.ts";
import { createInputs, type DeviceTensors, type Inputs } from "../../engine/inputs.ts";
import { add } from "../../engine/ops/add.ts";
import { adamw, CLIP_STATE, gradNorm } from "../../engine/ops/adamw.ts";
import { attention } from "../../engine/ops/attention.ts";
import { embedding, hostTokenIndex } from "../../engine/ops/embedding.ts";
import { gatherRows, hostRowIndex } from "../../engine/ops/gather_rows.ts";
import { hostBounds } from "../../engine/ops/sequence_bounds.ts";
import { matmul } from "../../engine/ops/matmul.ts";
import { NO_PENALTY, pairLoss, spoState } from "../../engine/ops/pair_loss.ts";
import { rmsNorm } from "../../engine/ops/rms_norm.ts";
import { rope, ropeTable } from "../../engine/ops/rope.ts";
import { hostSequenceIndex, sequenceLogps } from "../../engine/ops/sequence_logps.ts";
import { swigluLinear } from "../../engine/ops/swiglu_linear.ts";
import { hostLabels, tokenLogps } from "../../engine/ops/token_logps.ts";
import { createParameters, type Parameters } from "../../engine/parameters.ts";
import { Tape } from "../../engine/tape.ts";
import { fromHost, release, type Tensor, toHost } from "../../engine/tensor.ts";
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

/** What one product reads together. */
const GROUPS = [["q", "k", "v"], ["gate", "up"]];

/** Two pairs, chosen then rejected, of the given lengths; all but each first token are scored; padded to CAPACITY. */
function batchOf(gpu: Gpu, lengths: readonly number[], seed: number) {
  const segmentOffsets = [0];
  const positions = new Uint32Array(CAPACITY);
  const rows: number[] = [];
  for (const length of lengths) {
    const start = segmentOffsets.at(-1)!;
    for (let i = 0; i < length; i++) {
      if (i + 1 < length) rows.push(start + i);
      positions[start + i] = i;
    }
    segmentOffsets.push(start + length);
  }
  const tokens = segmentOffsets.at(-1)!;
  const ids = Uint32Array.from(integers(seededRandom(seed), { length: tokens, high: V }));
  const bounds = hostBounds({ segmentOffsets: Uint32Array.from(segmentOffsets) }, { capacity: CAPACITY });
  const capacity = { tokens: CAPACITY, rows: CAPACITY };
  const { rows: padded, offsets, places } = hostRowIndex(Uint32Array.from(rows), { tokens, capacity });
  const scored = lengths.map((length) => length - 1);
  return {
    tokens: hostTokenIndex(gpu, ids, { rows: V, length: CAPACITY }),
    positions,
    bounds: bounds.values,
    picked: { rows: padded, offsets, places },
    labels: hostLabels(rows.map((row) => ids[row + 1]), { vocab: V, length: CAPACITY }),
    sequences: hostSequenceIndex(scored, { length: CAPACITY }),
    lengths: Float32Array.from(scored),
    reference: new Float32Array(lengths.length),
  };
}

type Batch = ReturnType<typeof batchOf>;

/** What lives as long as the run. */
interface Run {
  parameters: Parameters;
  moments: Tensor[];
  table: Tensor;
  state: Tensor;
  metrics: Tensor;
  clip: Tensor;
  one: Tensor;
  inputs: Inputs;
  graphs: GraphCache;
}

/** A training step: recorded the first time, replayed from then on. */
function step(gpu: Gpu, run: Run, arrays: Batch): void {
  const batch = run.inputs.write(arrays);
  run.graphs.run("step", () => {
    run.parameters.zeroGradients();
    pass(gpu, run, batch);
    update(run);
  });
  gpu.queue.submit();
}

/** A one-layer Llama of one block, its DPO loss and the gradients. */
function pass(gpu: Gpu, run: Run, batch: DeviceTensors<Batch>): void {
  const { parameters, table, state, metrics } = run;
  const { tokens, positions, picked, labels, sequences, lengths, reference } = batch;
  const weight = (name: string) => parameters.get(name);
  using tape = new Tape(gpu);
  const bounds = { rows: { ...batch.bounds, shape: [CAPACITY, 4] }, longest: CAPACITY, readers: CAPACITY };
  const x = embedding(parameters.shards("embed"), tokens);
  const normed = rmsNorm(x, weight("norm"), { eps: 1e-5 });
  const heads = C / HEAD_DIM;
  const packed = matmul(normed, parameters.joined(GROUPS[0]), { kind: "NT" });
  const qkv = rope(packed, positions, table, { heads: heads + 1 });
  // Queries are as wide as x, so no output projection is needed.
  const attended = add(x, attention(qkv, { headDim: HEAD_DIM, heads, kvHeads: 1, bounds }));
  const again = rmsNorm(attended, weight("norm"), { eps: 1e-5 });
  const gated = swigluLinear(again, parameters.joined(GROUPS[1]));
  const hidden = matmul(gated, weight("down"), { kind: "NT", residual: attended });
  const scored = gatherRows(hidden, { ...picked, most: 1 });
  const sums = sequenceLogps(tokenLogps(scored, parameters.shards("embed"), labels), sequences);
  const loss = pairLoss(sums, {
    reference,
    lengths,
    metrics,
    metricsRow: 0,
    state,
    pairLoss: { terms: [{ loss: "dpo", weight: 1, options: { beta: 0.1, label_smoothing: 0 } }] },
    spo: { ...NO_PENALTY, penalty: "linear", lambda: 0.5, vStar: 1 },
    microBatch: { pairsInBatch: lengths.shape[0] / 2, isFirst: true, isLast: true },
  });
  tape.backward([{ tensor: loss, gradient: run.one }]);
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
  const parameters = createParameters(gpu, SHAPES, { trainable: true, groups: GROUPS });
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
    inputs: createInputs(gpu, batchOf(gpu, [2, 2, 2, 2], 0)),
    graphs: new GraphCache(gpu, { maxGraphs: 1 }),
  };
}

function endRun({ parameters, moments, table, state, metrics, clip, one, inputs, graphs }: Run): void {
  graphs[Symbol.dispose]();
  inputs[Symbol.dispose]();
  parameters[Symbol.dispose]();
  for (const tensor of [...moments, table, state, metrics, clip, one]) release(tensor);
}

/** What may not grow. */
function countersOf({ memory, dispatches: _, ...counters }: GpuStats) {
  return { created: memory.created, used: memory.usedBytes, ...counters };
}

gpuTest(
  "from step two on a step makes no buffer, pipeline, bind group or tape node, and submits once",
  async (gpu) => {
    const run = startRun(gpu);
    // Batches of other lengths and ids, all padded to one shape.
    const batches = [[9, 12, 8, 11], [3, 4, 5, 6], [16, 16, 16, 16], [7, 2, 9, 12], [15, 3, 3, 4], [
      9,
      12,
      8,
      11,
    ]]
      .map((lengths, index) => batchOf(gpu, lengths, index));
    const seen = batches.map((batch) => {
      step(gpu, run, batch);
      return countersOf(gpu.stats());
    });
    for (let index = 1; index < seen.length; index++) {
      assert.deepEqual(seen[index], { ...seen[0], submits: seen[0].submits + index }, `step ${index + 1}`);
    }
    const metrics = await toHost(run.metrics);
    assert.ok(metrics.every(Number.isFinite), `${metrics}`);
    assert.ok(metrics[METRICS_STRIDE - 1] > 0, "there was a gradient");
    endRun(run);
  },
  { layouts: LAYOUTS },
);

gpuTest("six steps of one batch lower its loss, and do so bit for bit when run again", async (gpu) => {
  const batch = batchOf(gpu, [9, 12, 8, 11], 5);
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
