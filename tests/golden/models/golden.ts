/**
 * Reads the golden folders that make.py and make_lora.py wrote with transformers and PEFT; golden_f64.py says what is
 * in them.
 *
 * @module
 */
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { join } from "node:path";
import { openSafetensors } from "../../../train/models/safetensors.ts";

/** Golden values of a checkpoint, computed in float64 and rounded to float32. */
export interface Golden {
  /** The folder in Hugging Face layout, to load the model from; of an adapter, PEFT's. */
  folder: string;
  /** Token ids of each sequence. */
  sequences: number[][];
  /** `[T, V]` logits of each sequence run alone. */
  logits: Float32Array[];
  /** Mean cross-entropy over all next tokens of all sequences together. */
  loss: number;
  /** Gradient of the loss by each trainable parameter, in full, under the name that transformers gives it. */
  gradients: Map<string, Float32Array>;
  /** Shapes of the gradients. */
  shapes: Map<string, readonly number[]>;
}

/** Golden values of an adapter on the checkpoint in another golden folder. */
export interface GoldenAdapter extends Golden {
  /** The golden folder of the checkpoint that the adapter belongs to, a name for {@link readGolden}. */
  base: string;
  /** The weights that PEFT's `merge_and_unload` changed, under the names of the checkpoint. */
  merged: Map<string, Float32Array>;
  /** `[T, V]` logits of the merged checkpoint, its weights rounded to float32. */
  mergedLogits: Float32Array[];
}

/** The names of all golden folders, sorted; those of adapters end in `_lora`. */
export function goldenNames(): string[] {
  const entries = readdirSync(fileURLToPath(new URL(".", import.meta.url)), { withFileTypes: true });
  return entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name).sort();
}

/**
 * Reads the golden values of a checkpoint.
 *
 * @param name A folder beside this file.
 * @returns Where it lies and what a model loaded from it must compute.
 */
export async function readGolden(name: string): Promise<Golden> {
  const { folder, json, tensors, shapes } = await readFolder(name);
  return {
    folder,
    sequences: json.sequences,
    logits: listOf(tensors, "logits."),
    loss: json.loss,
    gradients: withPrefix(tensors, "gradient."),
    shapes: withPrefix(shapes, "gradient."),
  };
}

/**
 * Reads the golden values of an adapter.
 *
 * @param name A folder beside this file that ends in `_lora`.
 * @returns Where it and its base lie and what the model with the adapter must compute.
 */
export async function readGoldenAdapter(name: string): Promise<GoldenAdapter> {
  const { json, tensors } = await readFolder(name);
  return {
    ...await readGolden(name),
    base: json.base,
    merged: withPrefix(tensors, "merged."),
    mergedLogits: listOf(tensors, "merged_logits."),
  };
}

async function readFolder(name: string) {
  const folder = fileURLToPath(new URL(name, import.meta.url));
  const json = JSON.parse(readFileSync(join(folder, "golden.json"), "utf8"));
  using file = await openSafetensors(join(folder, "golden.safetensors"));
  const tensors = new Map<string, Float32Array>();
  for (const tensor of file.header.tensors.keys()) {
    tensors.set(tensor, await file.read(tensor, { finite: true }));
  }
  const shapes = new Map([...file.header.tensors].map(([tensor, { shape }]) => [tensor, shape]));
  return { folder, json, tensors, shapes };
}

function withPrefix<T>(map: ReadonlyMap<string, T>, prefix: string): Map<string, T> {
  const found = [...map].filter(([name]) => name.startsWith(prefix));
  return new Map(found.map(([name, value]) => [name.slice(prefix.length), value]));
}

function listOf(tensors: ReadonlyMap<string, Float32Array>, prefix: string): Float32Array[] {
  const found = withPrefix(tensors, prefix);
  return [...found.keys()].map(Number).sort((a, b) => a - b).map((index) => found.get(String(index))!);
}
