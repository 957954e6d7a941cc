import assert from "node:assert/strict";
import type { Gpu } from "../../engine/gpu.ts";
import { scaledSum } from "../../engine/ops/scaled_sum.ts";
import { Tape } from "../../engine/tape.ts";
import { fromHost, release } from "../../engine/tensor.ts";
import { packSequences } from "../../train/data/batch.ts";
import { llamaTokenLogps } from "../../train/models/llama.ts";
import { gpuTest } from "../gpu.ts";
import { tinyModel } from "../tiny_model.ts";

/** What dispatches of one direction touch. */
interface Traffic {
  kernels: number;
  /** Bindings of inputs, and of outputs: each is read or written whole. */
  inputs: number;
  outputs: number;
  /** Elements of those bindings that are as many as the tokens are: activations, their gradients, row statistics. */
  inputElements: number;
  outputElements: number;
}

const TOKENS = 64;

/** The bench's layer: C = 128, 4 heads, F = 356. */
const LAYER = { hidden_size: 128, intermediate_size: 356, num_attention_heads: 4, num_key_value_heads: 4 };

/** Counts the bindings of every dispatch while `body` runs. */
function countTraffic(gpu: Gpu, body: (next: () => Traffic) => void): Traffic[] {
  const counts: Traffic[] = [];
  const next = () => {
    counts.push({ kernels: 0, inputs: 0, outputs: 0, inputElements: 0, outputElements: 0 });
    return counts[counts.length - 1];
  };
  const { dispatch } = gpu.queue;
  gpu.queue.dispatch = (kernel, call) => {
    const count = counts[counts.length - 1];
    count.kernels++;
    for (const [name, { access }] of Object.entries(kernel.build(call.constants).bindings)) {
      const elements = call.bindings[name].sizeBytes / 4;
      const ofTokens = elements % TOKENS === 0 ? elements : 0;
      count[access === "read_write" ? "outputs" : "inputs"]++;
      count[access === "read_write" ? "outputElements" : "inputElements"] += ofTokens;
    }
    dispatch.call(gpu.queue, kernel, call);
  };
  try {
    body(next);
  } finally {
    gpu.queue.dispatch = dispatch;
  }
  return counts;
}
