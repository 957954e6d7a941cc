import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { readAdapterConfig } from "../../../train/adapters/adapter_config.ts";
import { loadAdapter, saveAdapter } from "../../../train/adapters/adapter_files.ts";
import { withAdapterOff } from "../../../train/adapters/lora.ts";
import { mergeAdapter } from "../../../train/adapters/merge.ts";
import type { Gpu } from "../../../engine/gpu.ts";
import { loadModel } from "../../../train/models/model_files.ts";
import type { Model, ModelOptions } from "../../../train/models/model.ts";
import { gpuTest, LAYOUTS } from "../../gpu.ts";
import { assertClose } from "../../ops/check_op.ts";
import { modelFolder, temporaryFolder } from "../../tiny_model.ts";
import { type GoldenAdapter, goldenNames, readGolden, readGoldenAdapter } from "./golden.ts";
import { logitsOf, lossWithGradients } from "./run_model.ts";

const ADAPTERS = goldenNames().filter((name) => name.endsWith("_lora"));
const PREFIX = "base_model.model.";
const VOCAB = 48;

async function loadGolden(
  gpu: Gpu,
  golden: GoldenAdapter,
  options: Omit<ModelOptions, "trainable"> & { trainable: boolean },
): Promise<Model> {
  const base = await readGolden(golden.base);
  const files = Object.fromEntries(
    ["config.json", "model.safetensors"].map((name) => [name, join(base.folder, name)]),
  );
  const { model } = await loadModel(gpu, modelFolder(files, VOCAB), { ...options, trainable: false });
  return await loadAdapter(model, golden.folder, options);
}

async function checkGradients(gpu: Gpu, name: string, activationCheckpointing: boolean): Promise<void> {
  const golden = await readGoldenAdapter(name);
  using model = await loadGolden(gpu, golden, { trainable: true, activationCheckpointing });
  model.trained.zeroGradients();
  const loss = await lossWithGradients(model, golden.sequences);
  assertClose([loss], [golden.loss], { what: `${name}: loss`, rtol: 1e-5 });
  const names = [...model.trained.shapes.keys()].map((parameter) => PREFIX + parameter);
  assert.deepEqual(names.sort(), [...golden.gradients.keys()].sort());
  for (const [parameter, expected] of golden.gradients) {
    const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    assertClose(await model.trained.readGradient(parameter.slice(PREFIX.length)), expected, {
      what: `${name}: d ${parameter}`,
      ...{ rtol: 1e-3, atol: 1e-5 * largest },
    });
  }
}

for (const name of ADAPTERS) {
  gpuTest(`${name}: logits are those of PEFT, and without the adapter those of the base`, async (gpu) => {
    const golden = await readGoldenAdapter(name);
    const base = await readGolden(golden.base);
    using model = await loadGolden(gpu, golden, { trainable: false });
    for (const [index, ids] of golden.sequences.entries()) {
      const what = `${name}, sequence ${index}`;
      assertClose(await logitsOf(model, ids), golden.logits[index], { what, rtol: 1e-4 });
      const bare = await withAdapterOff(model, (without) => logitsOf(without, ids));
      assertClose(bare, base.logits[index], { what: `${what}, adapter off`, rtol: 1e-4 });
    }
  }, { layouts: LAYOUTS });

  gpuTest(
    `${name}: loss and the gradients of both factors are those of PEFT`,
    (gpu) => checkGradients(gpu, name, false),
    { layouts: LAYOUTS },
  );

  gpuTest(
    `${name}: with activation checkpointing, loss and gradients are the same`,
    (gpu) => checkGradients(gpu, name, true),
  );

  gpuTest(`${name}: saved, it has PEFT's bytes, and saves to equal bytes again`, async (gpu) => {
    const golden = await readGoldenAdapter(name);
    const [first, second] = [temporaryFolder(), temporaryFolder()];
    using model = await loadGolden(gpu, golden, { trainable: false });
    await saveAdapter(first, model);
    using again = await loadGolden(gpu, { ...golden, folder: first }, { trainable: false });
    await saveAdapter(second, again);
    const bytes = (folder: string, file: string) => new Uint8Array(readFileSync(join(folder, file)));
    for (const file of ["adapter_config.json", "adapter_model.safetensors"]) {
      assert.deepEqual(bytes(second, file), bytes(first, file));
    }
    assert.deepEqual(
      bytes(first, "adapter_model.safetensors"),
      bytes(golden.folder, "adapter_model.safetensors"),
    );
    assert.deepEqual(await readAdapterConfig(first), await readAdapterConfig(golden.folder));
  });

  gpuTest(`${name}: merged, it has PEFT's weights, and gives the adapter's logits`, async (gpu) => {
    const golden = await readGoldenAdapter(name);
    const base = await readGolden(golden.base);
    const files = Object.fromEntries(
      ["config.json", "model.safetensors"].map((file) => [file, join(base.folder, file)]),
    );
    const output = temporaryFolder();
    await mergeAdapter({ adapter: golden.folder, base: modelFolder(files, VOCAB), output, dtype: "f32" });
    const { model } = await loadModel(gpu, output, { trainable: false });
    using merged = model;
    for (const [parameter, expected] of golden.merged) {
      assertClose(await merged.parameters.read(parameter), expected, {
        what: parameter,
        atol: 1e-6,
        rtol: 1e-6,
      });
    }
    for (const [index, ids] of golden.sequences.entries()) {
      const what = `${name} merged, sequence ${index}`;
      assertClose(await logitsOf(merged, ids), golden.mergedLogits[index], { what, rtol: 1e-4 });
    }
  });
}
