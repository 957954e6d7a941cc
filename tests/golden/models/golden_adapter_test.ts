import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { openSafetensors, type SafetensorsFile } from "../../../train/models/safetensors.ts";
import { type GoldenAdapter, goldenNames, readGolden, readGoldenAdapter } from "./golden.ts";

const ADAPTERS = goldenNames().filter((name) => name.endsWith("_lora"));
const PREFIX = "base_model.model.";

/** The keys of adapter_config.json that this test needs. */
interface AdapterConfig {
  r: number;
  lora_alpha: number;
  use_rslora: boolean;
  fan_in_fan_out: boolean;
  target_modules: string[];
}

function configOf({ folder }: GoldenAdapter): AdapterConfig {
  return JSON.parse(readFileSync(join(folder, "adapter_config.json"), "utf8"));
}

/** The modules that have an A and a B, as the checkpoint names them. */
function modulesOf({ gradients }: GoldenAdapter): string[] {
  const modules = [...gradients.keys()].map((key) =>
    key.replace(PREFIX, "").replace(/\.lora_[AB]\.weight$/, "")
  );
  return [...new Set(modules)].sort();
}

/** The largest difference between W + scale B A and the merged weight; Conv1D's weight is transposed. */
async function mergeError(
  module: string,
  { golden, base, adapter }: { golden: GoldenAdapter; base: SafetensorsFile; adapter: SafetensorsFile },
): Promise<number> {
  const { r, lora_alpha, use_rslora, fan_in_fan_out } = configOf(golden);
  const [a, b, weight] = await Promise.all([
    adapter.read(`${PREFIX}${module}.lora_A.weight`),
    adapter.read(`${PREFIX}${module}.lora_B.weight`),
    base.read(`${module}.weight`),
  ]);
  const merged = golden.merged.get(`${module}.weight`)!;
  const [outSize, inSize] = [b.length / r, a.length / r];
  const scale = lora_alpha / (use_rslora ? Math.sqrt(r) : r);
  let largest = 0;
  for (let o = 0; o < outSize; o++) {
    for (let i = 0; i < inSize; i++) {
      let update = 0;
      for (let k = 0; k < r; k++) update += b[o * r + k] * a[k * inSize + i];
      const at = fan_in_fan_out ? i * outSize + o : o * inSize + i;
      largest = Math.max(largest, Math.abs(weight[at] + scale * update - merged[at]));
    }
  }
  return largest;
}

function distance(a: Float32Array[], b: Float32Array[]): number {
  return Math.max(
    ...a.map((rows, i) => rows.reduce((most, x, j) => Math.max(most, Math.abs(x - b[i][j])), 0)),
  );
}

Deno.test("the golden adapters are there, on four bases", async () => {
  const names = [
    "gpt2_lora",
    "llama3_all_linear_lora",
    "llama3_qv_lora",
    "qwen2_bf16_lora",
    "qwen2_rslora_lora",
  ];
  assert.deepEqual(ADAPTERS, names);
  const goldens = await Promise.all(names.map(readGoldenAdapter));
  assert.deepEqual(
    new Set(goldens.map(({ base }) => base)),
    new Set(["gpt2", "llama3", "qwen2_bf16", "qwen2"]),
  );
  assert.equal(goldens.filter((golden) => configOf(golden).use_rslora).length, 1);
  assert.equal(goldens.filter((golden) => configOf(golden).fan_in_fan_out).length, 1);
});

for (const name of ADAPTERS) {
  Deno.test(`golden ${name}: a gradient for every tensor, of the modules that the configuration names`, async () => {
    const golden = await readGoldenAdapter(name);
    using adapter = await openSafetensors(join(golden.folder, "adapter_model.safetensors"));
    assert.deepEqual([...golden.gradients.keys()].sort(), [...adapter.header.tensors.keys()].sort());
    for (const [parameter, shape] of golden.shapes) {
      assert.deepEqual(shape, adapter.header.tensors.get(parameter)!.shape, parameter);
      assert.ok((await adapter.read(parameter)).some((value) => value !== 0), parameter);
    }
    const targets = configOf(golden).target_modules;
    for (const module of modulesOf(golden)) {
      assert.ok(targets.some((target) => `.${module}`.endsWith(`.${target}`)), module);
    }
  });

  Deno.test(`golden ${name}: merged weights are W + scale B A, and give the adapter's logits`, async () => {
    const golden = await readGoldenAdapter(name);
    const baseGolden = await readGolden(golden.base);
    using base = await openSafetensors(join(baseGolden.folder, "model.safetensors"));
    using adapter = await openSafetensors(join(golden.folder, "adapter_model.safetensors"));
    assert.deepEqual(
      [...golden.merged.keys()].sort(),
      modulesOf(golden).map((module) => `${module}.weight`),
    );
    for (const module of modulesOf(golden)) {
      const error = await mergeError(module, { golden, base, adapter });
      assert.ok(error < 1e-6, `${module}: ${error}`);
    }
    assert.deepEqual(golden.sequences, baseGolden.sequences);
    assert.ok(distance(golden.logits, golden.mergedLogits) < 1e-5);
    assert.ok(distance(golden.logits, baseGolden.logits) > 0.05);
  });
}
