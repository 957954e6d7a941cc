/**
 * Trains adapters on golden checkpoints and writes them, alone and merged, with the logits they give, for
 * check_adapter.py and check_model.py; run by hand:
 *
 *     deno run -R -W -E -S --allow-ffi --allow-run tests/golden/models/write_adapters.ts FOLDER
 *
 * FOLDER gets two folders for each adapter; what is printed are the command lines of the checks.
 *
 * @module
 */
import { join } from "node:path";
import { openGpu } from "../../../engine/gpu.ts";
import { saveAdapter } from "../../../train/adapters/adapter_files.ts";
import { addLora, type LoraOptions } from "../../../train/adapters/lora.ts";
import { mergeAdapter } from "../../../train/adapters/merge.ts";
import { loadModel } from "../../../train/models/model_files.ts";
import { writeSafetensors } from "../../../train/models/safetensors_write.ts";
import { sftObjective } from "../../../train/objective.ts";
import { ensureAdapter } from "../../../train/software_driver.ts";
import { train } from "../../../train/trainer.ts";
import { modelFolder, tinyTokenizer } from "../../tiny_model.ts";
import { readGolden } from "./golden.ts";
import { logitsOf } from "./run_model.ts";

const VOCAB = 48;

/** A base and what is added to it. */
const ADAPTERS: Record<string, { base: string } & Omit<LoraOptions, "base">> = {
  llama3: { base: "llama3", rank: 8 },
  qwen2_rslora: { base: "qwen2", rank: 4, alpha: 6, rslora: true },
  qwen3_pattern: {
    base: "qwen3",
    rank: 3,
    targetModules: String.raw`.*layers\.1\.(self_attn|mlp)\.(q|up)_proj`,
  },
  gpt2: { base: "gpt2", rank: 4, targetModules: ["c_attn", "mlp.c_proj"] },
  phi3: { base: "phi3", rank: 4 },
};

const [folder] = Deno.args;
if (!folder) throw new TypeError("Cannot write adapters: expected a folder, found none");
await ensureAdapter();
using gpu = await openGpu();
for (const [name, { base, ...options }] of Object.entries(ADAPTERS)) {
  const golden = await readGolden(base);
  const files = ["config.json", "model.safetensors"].map((file) => [file, join(golden.folder, file)]);
  const source = modelFolder(Object.fromEntries(files), VOCAB);
  const loaded = await loadModel(gpu, source, { trainable: false });
  using model = addLora(loaded.model, { ...options, base: golden.folder });
  const completions = golden.sequences.map(([first, ...rest], index) => ({
    ...{ promptIds: [first], completionIds: rest, source: { file: base, line: index + 1 } },
  }));
  using objective = sftObjective(model, completions);
  await train(objective, {
    optimizer: { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, maxGradNorm: 1 },
    schedule: { kind: "constant", learningRate: 1e-2, warmupSteps: 0, maxSteps: 20 },
    ...{ batchSize: 2, seed: 0, logEvery: 10 },
  });
  const output = join(folder, name);
  await saveAdapter(output, model, { tokenizer: tinyTokenizer(VOCAB) });
  const ids = golden.sequences[0];
  const logits = await logitsOf(model, ids);
  const merged = `${output}_merged`;
  await mergeAdapter({ adapter: output, base: source, output: merged });
  for (const written of [output, merged]) {
    await writeSafetensors(join(written, "logits.safetensors"), [
      { name: "ids", shape: [ids.length], data: () => Float32Array.from(ids) },
      { name: "logits", shape: [ids.length, logits.length / ids.length], data: () => logits },
    ], { dtype: "f32" });
  }
  console.log(`python tests/golden/models/check_adapter.py ${output} ${golden.folder}`);
  console.log(`python tests/golden/models/check_model.py ${merged}`);
}
