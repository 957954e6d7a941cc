import assert from "node:assert/strict";
import type { Gpu } from "../../engine/gpu.ts";
import { scaledSum } from "../../engine/ops/scaled_sum.ts";
import { Tape } from "../../engine/tape.ts";
import { fromHost, release } from "../../engine/tensor.ts";
import { packSequences } from "../../train/data/batch.ts";
import { uploadBatch } from "../../train/models/batch_tensors.ts";
import { batchTokenLogps } from "../../train/models/model.ts";
import { gpuTest } from "../gpu.ts";
import { tinyModel } from "../tiny_model.ts";

/** What dispatches touch: each input is read whole, each output written whole, and read first where it is added to. */
interface Traffic {
  kernels: number;
  readBytes: number;
  writtenBytes: number;
}

/** The bench's layer: C = 128, 4 heads, F = 356. */
const LAYER = { hidden_size: 128, intermediate_size: 356, num_attention_heads: 4, num_key_value_heads: 4 };

/** Counts the bindings of every dispatch while `body` runs. */
function countTraffic(gpu: Gpu, body: () => void): Traffic {
  const count = { kernels: 0, readBytes: 0, writtenBytes: 0 };
  const { dispatch } = gpu.queue;
  gpu.queue.dispatch = (kernel, call) => {
    count.kernels++;
    const adds = Object.entries(call.params).some(([name, value]) => /^accumulate/.test(name) && value !== 0);
    const seen = new Set<string>();
    for (const [name, { access }] of Object.entries(kernel.build(call.constants).bindings)) {
      const { allocation, offsetBytes, sizeBytes } = call.bindings[name];
      const place = `${allocation.id} ${offsetBytes}`;
      // What an op does not use is bound to something that it uses.
      if (access !== "read_write" && seen.has(place)) continue;
      seen.add(place);
      if (access === "read_write") count.writtenBytes += sizeBytes;
      if (access !== "read_write" || adds || kernel.name === "rope") count.readBytes += sizeBytes;
    }
    dispatch.call(gpu.queue, kernel, call);
  };
  try {
    body();
  } finally {
    gpu.queue.dispatch = dispatch;
  }
  return count;
}

/** Traffic of the log-probs of one sequence, and of their gradients. */
function modelTraffic(gpu: Gpu, layers: number, tokens: number): { forward: Traffic; backward: Traffic } {
  const config = { ...LAYER, num_hidden_layers: layers, max_position_embeddings: 256 };
  using model = tinyModel(gpu, { config });
  const ids = Array.from({ length: tokens }, (_, i) => i % 16);
  const source = { file: "made.jsonl" };
  const packed = packSequences([{ promptIds: ids.slice(0, 1), completionIds: ids.slice(1), source }]);
  const batch = uploadBatch(model, packed);
  const one = fromHost(gpu, Float32Array.of(1), { shape: [1] });
  using tape = new Tape(gpu);
  let loss = one;
  const forward = countTraffic(gpu, () => loss = scaledSum(batchTokenLogps(model, batch), { scale: 1 }));
  const backward = countTraffic(gpu, () => tape.backward([{ tensor: loss, gradient: one }]));
  gpu.queue.submit();
  release(one);
  return { forward, backward };
}

gpuTest("a layer takes few kernels, and moves few bytes a token", (gpu) => {
  const [short, long] = [32, 64];
  const perLayer = (tokens: number) => {
    const [one, two] = [modelTraffic(gpu, 1, tokens), modelTraffic(gpu, 2, tokens)];
    return (direction: "forward" | "backward", what: keyof Traffic) =>
      two[direction][what] - one[direction][what];
  };
  const [atShort, atLong] = [perLayer(short), perLayer(long)];
  // What weights take is the same for both lengths.
  const perToken = (direction: "forward" | "backward", what: "readBytes" | "writtenBytes") =>
    (atLong(direction, what) - atShort(direction, what)) / (long - short);
  const rows = (["forward", "backward"] as const).map((direction) => [
    direction,
    atLong(direction, "kernels"),
    perToken(direction, "readBytes"),
    perToken(direction, "writtenBytes"),
  ]);
  // These are the figures of docs/performance.md, "Fusions".
  assert.deepEqual(rows, [["forward", 8, 8100, 9928], ["backward", 19, 31460, 13504]]);
}, { layouts: ["gpu"] });
