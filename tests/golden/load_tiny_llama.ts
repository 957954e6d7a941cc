/**
 * Reads the tiny Llama fixtures for the reference, without the product's own readers, which are checked against them.
 *
 * @module
 */
import { readFileSync } from "node:fs";
import type { LlamaConfig, LlamaParameters } from "../reference/llama.ts";

/** What PyTorch found for a fixture; llama.py says how. */
export interface TinyLlamaGolden {
  /** Token ids of each sequence. */
  sequences: number[][];
  /** `[N, V]` logits of each sequence. */
  logits: number[][];
  /** Mean cross-entropy over all next tokens of all sequences. */
  loss: number;
  /** Gradient of the loss by each parameter. */
  gradients: Record<string, GoldenGradient>;
}

/** A gradient in short. */
export interface GoldenGradient {
  /** Shape of the parameter. */
  shape: number[];
  /** The first 64 values, row-major. */
  head: number[];
  /** Sum of all values. */
  sum: number;
  /** Sum of the squares of all values. */
  sumSquares: number;
  /** Sum of g[i] cos(i) over all values. */
  projection: number;
}

/** A fixture: config, parameters and golden values. */
export interface TinyLlama {
  /** Sizes. */
  config: LlamaConfig;
  /** Parameters by name, float32 widened. */
  parameters: LlamaParameters;
  /** Expected values. */
  golden: TinyLlamaGolden;
}

/**
 * Reads a fixture.
 *
 * @param name Folder: `tiny_llama` has its own head, `tiny_llama_tied` a tied one.
 * @returns Config, parameters and golden values.
 */
export function loadTinyLlama(name: "tiny_llama" | "tiny_llama_tied"): TinyLlama {
  const read = (file: string) => readFileSync(new URL(`${name}/${file}`, import.meta.url));
  const config = JSON.parse(read("config.json").toString());
  // transformers 5 moved the base of the rotary embedding.
  config.rope_theta ??= config.rope_parameters.rope_theta;
  return {
    config,
    parameters: readFloat32Tensors(read("model.safetensors")),
    golden: JSON.parse(read("golden.json").toString()),
  };
}

function readFloat32Tensors(file: Uint8Array): LlamaParameters {
  const bytes = file.slice().buffer;
  const headerBytes = Number(new DataView(bytes).getBigUint64(0, true));
  const header: Record<string, { dtype: string; data_offsets: [number, number] }> = JSON.parse(
    new TextDecoder().decode(new Uint8Array(bytes, 8, headerBytes)),
  );
  const parameters: LlamaParameters = new Map();
  for (const [name, { dtype, data_offsets }] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    if (dtype !== "F32") throw new TypeError(`Cannot read ${name}: expected F32, found ${dtype}`);
    const [start, end] = data_offsets.map((offset) => 8 + headerBytes + offset);
    parameters.set(name, Float64Array.from(new Float32Array(bytes.slice(start, end))));
  }
  return parameters;
}
