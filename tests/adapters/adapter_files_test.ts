import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Gpu } from "../../engine/gpu.ts";
import { readAdapterConfig } from "../../train/adapters/adapter_config.ts";
import { loadAdapter, saveAdapter } from "../../train/adapters/adapter_files.ts";
import { addLora, type LoraOptions } from "../../train/adapters/lora.ts";
import { mergeAdapter } from "../../train/adapters/merge.ts";
import { CheckpointError, ConfigError, InputError } from "../../train/errors.ts";
import { findModelFolders, loadModelOrAdapter } from "../../train/models/load_model.ts";
import { saveModel } from "../../train/models/model_files.ts";
import type { Model } from "../../train/models/model.ts";
import { openSafetensors } from "../../train/models/safetensors.ts";
import { writeSafetensors } from "../../train/models/safetensors_write.ts";
import { completionLogps } from "../../train/reference.ts";
import { gpuTest } from "../gpu.ts";
import { randomCompletions, temporaryFolder, tinyModel, tinyTokenizer } from "../tiny_model.ts";

const COMPLETIONS = randomCompletions(8, 3);
const PREFIX = "base_model.model.model.layers.0.";
const Q = `${PREFIX}self_attn.q_proj.lora_`;

/** A base and an adapter for it, each in its folder; the adapter changes something. */
async function folders(
  gpu: Gpu,
  options: Partial<LoraOptions> = {},
): Promise<{ base: string; adapter: string }> {
  const [base, adapter] = [temporaryFolder(), temporaryFolder()];
  const frozen = tinyModel(gpu, { trainable: false });
  await saveModel(base, frozen, { tokenizer: tinyTokenizer() });
  using model = addLora(frozen, { rank: 2, targetModules: ["q_proj", "down_proj"], base, ...options });
  for (const [name, [rows, columns]] of model.trained.shapes) {
    const values = Float32Array.from({ length: rows * columns }, (_, i) => Math.sin(i + name.length));
    model.trained.write(name, values);
  }
  await saveAdapter(adapter, model);
  return { base, adapter };
}

/** Replaces tensors of an adapter. */
async function rewrite(
  folder: string,
  change: Record<string, { shape: number[]; value?: number } | null>,
): Promise<void> {
  const path = join(folder, "adapter_model.safetensors");
  const tensors = new Map<string, { shape: readonly number[]; values: Float32Array }>();
  {
    using file = await openSafetensors(path);
    for (const [name, { shape }] of file.header.tensors) {
      tensors.set(name, { shape, values: await file.read(name) });
    }
  }
  for (const [name, made] of Object.entries(change)) {
    if (!made) tensors.delete(name);
    else {
      const { shape, value = 1 } = made;
      tensors.set(name, { shape, values: new Float32Array(shape[0] * shape[1]).fill(value) });
    }
  }
  const sources = [...tensors].map(([name, { shape, values }]) => ({ name, shape, data: () => values }));
  await writeSafetensors(path, sources, { dtype: "f32" });
}

async function edit(folder: string, change: Record<string, unknown>): Promise<void> {
  const path = join(folder, "adapter_config.json");
  const json = JSON.parse(await Deno.readTextFile(path));
  await Deno.writeTextFile(path, JSON.stringify({ ...json, ...change }));
}

async function messageOf(action: Promise<unknown>): Promise<string> {
  const error = await action.then(() => assert.fail("expected a refusal"), (error: Error) => error);
  assert.ok(error instanceof InputError, String(error));
  return error.message;
}

gpuTest("an adapter's folder loads with the base that it names, or another that is given", async (gpu) => {
  const { base, adapter } = await folders(gpu);
  assert.deepEqual(await findModelFolders(adapter), { base, adapter, tokenizer: base });
  assert.deepEqual(await findModelFolders(base), { base, tokenizer: base });
  const logps = async (folder: string, options: { base?: string } = {}) => {
    const { model, tokenizer } = await loadModelOrAdapter(gpu, folder, { trainable: false, ...options });
    using _ = model;
    assert.equal(tokenizer.vocabSize, 16);
    return await completionLogps(model, COMPLETIONS);
  };
  const [plain, adapted] = [await logps(base), await logps(adapter)];
  assert.notDeepEqual(adapted, plain);
  await edit(adapter, { base_model_name_or_path: "nowhere/at-all" });
  assert.deepEqual(await logps(adapter, { base }), adapted);
  assert.equal(
    await messageOf(logps(adapter)),
    `Cannot load the adapter ${adapter}: expected its base, a folder with config.json, in nowhere/at-all ` +
      "(base_model_name_or_path; --base names another), found none",
  );
  await edit(adapter, { base_model_name_or_path: null });
  assert.match(
    await messageOf(logps(adapter)),
    /expected base_model_name_or_path in adapter_config.json, or a base/,
  );
  assert.match(
    await messageOf(logps(base, { base })),
    /expected an adapter \(adapter_config.json\), found none/,
  );
  // Names on the hub become folders.
  await edit(adapter, { base_model_name_or_path: "owner/name" });
  const places: Record<string, string> = { "owner/name": base, "owner/adapter": adapter };
  const resolve = (name: string) => Promise.resolve(places[name] ?? assert.fail(name));
  assert.deepEqual(await findModelFolders("owner/adapter", { resolve }), { base, adapter, tokenizer: base });
});

/** What is done to an adapter's folder -> what the message says. */
const REFUSED: [string, (folder: string) => Promise<void>, RegExp][] = [
  [
    "an adapter of a wider base",
    (folder) => rewrite(folder, { [`${Q}A.weight`]: { shape: [2, 20] } }),
    /^Cannot use the adapter .*: tensor base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight: expected shape \[2, 16\], found \[2, 20\]: it was made for ".*" \(base_model_name_or_path\)$/,
  ],
  [
    "another rank than the configuration says",
    (folder) => edit(folder, { r: 3 }),
    /lora_A.weight: expected shape \[3, 16\], found \[2, 16\]/,
  ],
  [
    "a missing factor",
    (folder) => rewrite(folder, { [`${Q}B.weight`]: null }),
    /q_proj.lora_B.weight: expected shape \[16, 2\], found nothing: it was made for/,
  ],
  [
    "a layer that the base does not have",
    (folder) =>
      rewrite(folder, { "base_model.model.model.layers.1.mlp.up_proj.lora_A.weight": { shape: [2, 16] } }),
    /expected linear layers of this base, found "base_model.model.model.layers.1.mlp.up_proj.lora_A.weight": it was made for/,
  ],
  [
    "a module that is no target",
    (folder) => rewrite(folder, { [`${PREFIX}mlp.up_proj.lora_A.weight`]: { shape: [2, 16] } }),
    /expected factors of the target modules alone, found those of model.layers.0.mlp.up_proj/,
  ],
  [
    "a saved head",
    (folder) => rewrite(folder, { "base_model.model.lm_head.weight": { shape: [16, 16] } }),
    /expected factors of linear layers alone, found tensor "base_model.model.lm_head.weight"$/,
  ],
  [
    "targets of another architecture",
    (folder) => edit(folder, { target_modules: ["c_attn"] }),
    /expected target modules of this model \(.*\), found "c_attn", which none matches: it was made for/,
  ],
  [
    "weights that lie the other way",
    (folder) => edit(folder, { fan_in_fan_out: true }),
    /expected fan_in_fan_out false for this base, found true: it was made for/,
  ],
  [
    "a factor that is not a number",
    (folder) => rewrite(folder, { [`${Q}A.weight`]: { shape: [2, 16], value: NaN } }),
    /tensor "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": expected finite values, found NaN at \[0, 0\]/,
  ],
  [
    "DoRA",
    (folder) => edit(folder, { use_dora: true }),
    /adapter_config.json: use_dora: expected null \(nothing else is supported\), found true$/,
  ],
  [
    "a missing file",
    (folder) => Deno.remove(join(folder, "adapter_model.safetensors")),
    /expected a file, found nothing/,
  ],
];

gpuTest(
  "adapters that do not fit are refused, naming the tensor and the base they were made for",
  async (gpu) => {
    for (const [name, change, message] of REFUSED) {
      const { base, adapter } = await folders(gpu);
      await change(adapter);
      const error = await loadModelOrAdapter(gpu, adapter, { trainable: false }).then(
        () => assert.fail(name),
        (error) => error,
      );
      assert.ok(error instanceof CheckpointError, `${name}: ${error}`);
      assert.match(error.message, message, name);
      const output = join(temporaryFolder(), "merged");
      assert.match(await messageOf(mergeAdapter({ adapter, base, output })), message, `${name}, merged`);
    }
  },
);

gpuTest("an adapter that was trained with dropout is used, and not trained on", async (gpu) => {
  const { base, adapter } = await folders(gpu);
  await edit(adapter, { lora_dropout: 0.05 });
  const { model } = await loadModelOrAdapter(gpu, adapter, { trainable: false, base });
  model[Symbol.dispose]();
  using frozen = tinyModel(gpu, { trainable: false });
  await assert.rejects(
    loadAdapter(frozen, adapter, { trainable: true }),
    new ConfigError(`Cannot train ${adapter}: lora_dropout in adapter_config.json: expected 0, found 0.05`),
  );
});

gpuTest("targets are written as PEFT writes them", async (gpu) => {
  const written = async (targetModules: LoraOptions["targetModules"]) =>
    (await readAdapterConfig((await folders(gpu, { targetModules })).adapter)).targetModules;
  assert.deepEqual(await written("all-linear"), [
    ...["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"],
  ]);
  assert.equal(await written(".*_proj"), ".*_proj");
});

/** Logits are not read back here: log-probs say as much. */
async function scores(gpu: Gpu, folder: string): Promise<Float32Array> {
  const { model } = await loadModelOrAdapter(gpu, folder, { trainable: false });
  using _: Model = model;
  return await completionLogps(model, COMPLETIONS);
}

gpuTest("a merged model is whole, scores as base and adapter do, and replaces neither", async (gpu) => {
  const { base, adapter } = await folders(gpu, { rslora: true, targetModules: "all-linear" });
  const output = join(temporaryFolder(), "made", "on demand");
  const calls: number[] = [];
  const summary = await mergeAdapter({ adapter, output, onProgress: (done) => void calls.push(done) });
  assert.deepEqual(summary, { base, modules: 7, dtype: "f32" });
  assert.equal(calls.at(-1), calls.length);
  const [found, expected] = [await scores(gpu, output), await scores(gpu, adapter)];
  found.forEach((value, i) => assert.ok(Math.abs(value - expected[i]) < 1e-4 * (1 + Math.abs(expected[i]))));
  // A base in several files merges to the same bytes.
  const [sharded, again] = [temporaryFolder(), temporaryFolder()];
  using plain = tinyModel(gpu, { trainable: false });
  await saveModel(sharded, plain, { tokenizer: tinyTokenizer(), maxShardBytes: 4096 });
  assert.ok(existsSync(join(sharded, "model.safetensors.index.json")));
  await mergeAdapter({ adapter, base: sharded, output: again });
  const bytes = (folder: string) => Deno.readFileSync(join(folder, "model.safetensors"));
  assert.deepEqual(bytes(again), bytes(output));
  await mergeAdapter({ adapter, output, dtype: "bf16" });
  using file = await openSafetensors(join(output, "model.safetensors"));
  assert.ok([...file.header.tensors.values()].every(({ dtype }) => dtype === "BF16"));
  for (const input of [base, adapter]) {
    assert.match(
      await messageOf(mergeAdapter({ adapter, output: input })),
      /^Cannot merge into .*: expected another folder than what is merged/,
    );
  }
  assert.match(
    await messageOf(mergeAdapter({ adapter: output, output: base })),
    /expected the folder of an adapter/,
  );
});
