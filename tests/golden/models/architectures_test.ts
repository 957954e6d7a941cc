import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Gpu } from "../../../engine/gpu.ts";
import { noGrad } from "../../../engine/tape.ts";
import { release, scope, toHost } from "../../../engine/tensor.ts";
import { uploadBatch } from "../../../train/models/batch_tensors.ts";
import { parseModelConfig } from "../../../train/models/config.ts";
import { batchTokenLogps, type Model, type ModelOptions } from "../../../train/models/model.ts";
import { loadModel } from "../../../train/models/model_files.ts";
import { architectureOf } from "../../../train/models/registry.ts";
import { gpuTest, LAYOUTS } from "../../gpu.ts";
import { assertClose } from "../../ops/check_op.ts";
import { modelFolder } from "../../tiny_model.ts";
import { type Golden, readGolden } from "./golden.ts";
import { labelsOf, logitsOf, lossWithGradients, packGolden } from "./run_model.ts";

/** A golden checkpoint, and what is particular to it. */
interface Case {
  readonly name: string;
  /** Dynamic RoPE's table belongs to one length: a model is made for each sequence, of exactly its tokens. */
  readonly perSequence?: boolean;
}

const CASES: Case[] = [
  { name: "llama" },
  { name: "llama_linear" },
  { name: "llama_dynamic", perSequence: true },
  { name: "llama3" },
  { name: "llama_bias" },
  { name: "llama_f16" },
  { name: "llama_sharded" },
  { name: "mistral" },
  { name: "mistral_window" },
  { name: "qwen2" },
  { name: "qwen2_untied" },
  { name: "qwen2_bf16" },
  { name: "qwen3" },
  { name: "gpt2" },
  { name: "gpt2_published" },
  { name: "phi3" },
];

const VOCAB = 48;

async function loadGolden(gpu: Gpu, { folder }: Golden, options: ModelOptions): Promise<Model> {
  const names = readdirSync(folder).filter((name) => /^(config\.json|model.*)$/.test(name));
  const files = Object.fromEntries(names.map((name) => [name, join(folder, name)]));
  return (await loadModel(gpu, modelFolder(files, VOCAB), options)).model;
}

/** What one model is made for: all sequences, or each its own. */
function partsOf({ sequences }: Golden, { perSequence }: Case): { index: number; ids: number[] }[][] {
  const all = sequences.map((ids, index) => ({ index, ids }));
  return perSequence ? all.map((part) => [part]) : [all];
}

function lengthOf(part: readonly { ids: readonly number[] }[]): number {
  return Math.max(...part.map(({ ids }) => ids.length));
}

async function checkLogits(gpu: Gpu, each: Case): Promise<void> {
  const golden = await readGolden(each.name);
  for (const part of partsOf(golden, each)) {
    using model = await loadGolden(gpu, golden, { trainable: false, positions: lengthOf(part) });
    for (const { index, ids } of part) {
      const what = `${each.name}, sequence ${index}`;
      assertClose(await logitsOf(model, ids), golden.logits[index], { what, rtol: 1e-4 });
    }
  }
}

async function checkGradients(gpu: Gpu, each: Case, activationCheckpointing: boolean): Promise<void> {
  const golden = await readGolden(each.name);
  const labels = labelsOf(golden.sequences);
  const found = new Map<string, Float32Array>();
  let loss = 0;
  for (const part of partsOf(golden, each)) {
    const options = { trainable: true, positions: lengthOf(part), activationCheckpointing };
    using model = await loadGolden(gpu, golden, options);
    model.parameters.zeroGradients();
    loss += await lossWithGradients(model, part.map(({ ids }) => ids), labels);
    for (const name of model.parameters.shapes.keys()) {
      const gradient = await model.parameters.readGradient(name);
      found.set(name, gradient.map((value, i) => value + (found.get(name)?.[i] ?? 0)));
    }
  }
  assertClose([loss], [golden.loss], { what: `${each.name}: loss`, rtol: 1e-5 });
  assert.deepEqual([...found.keys()].sort(), [...golden.gradients.keys()].sort());
  for (const [name, expected] of golden.gradients) {
    const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    assertClose(found.get(name)!, expected, {
      what: `${each.name}: d ${name}`,
      ...{ rtol: 1e-3, atol: 1e-5 * largest },
    });
  }
}

for (const each of CASES) {
  gpuTest(`${each.name}: logits are those of transformers`, (gpu) => checkLogits(gpu, each), {
    layouts: LAYOUTS,
  });

  gpuTest(
    `${each.name}: loss and every parameter's gradient are those of transformers`,
    (gpu) => checkGradients(gpu, each, false),
    { layouts: LAYOUTS },
  );

  gpuTest(
    `${each.name}: with activation checkpointing, loss and gradients are the same`,
    (gpu) => checkGradients(gpu, each, true),
  );

  gpuTest(`${each.name}: in f16, log-probs are those of f32 but for rounding`, async (gpu) => {
    const golden = await readGolden(each.name);
    const [, ids] = golden.sequences;
    const positions = ids.length;
    const logps = async (dtype: "f32" | "f16") => {
      using model = await loadGolden(gpu, golden, { trainable: false, positions, dtype });
      const kept = scope(
        gpu,
        () => noGrad(gpu, () => batchTokenLogps(model, uploadBatch(model, packGolden([ids])))),
      );
      const values = await toHost(kept);
      release(kept);
      return values;
    };
    const exact = await logps("f32");
    const half = await logps("f16");
    // Weights and activations have 11 bits; log-probs are differences of logits of size 5 or so.
    assertClose(half, exact, { what: `${each.name} in f16`, atol: 0.03, rtol: 0 });
    assert.notDeepEqual(half, exact);
  });
}

for (const { name } of CASES.filter(({ name }) => !name.startsWith("gpt2"))) {
  Deno.test(`${name}: the layout of the other transformers says the same`, async () => {
    const { folder } = await readGolden(name);
    const [own, other] = ["config.json", "config_other_layout.json"].map((file) =>
      parseModelConfig(JSON.parse(readFileSync(join(folder, file), "utf8")), { file })
    );
    // Version 4 of the fixtures names a window that is switched off.
    const meant = (config: typeof own) => ({ ...config, sliding_window: null });
    const isQwen = name.startsWith("qwen");
    assert.deepEqual(isQwen ? meant(other) : other, isQwen ? meant(own) : own);
    assert.deepEqual(architectureOf(other).dimensions, architectureOf(own).dimensions);
  });
}
