import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { openSafetensors } from "../../../train/models/safetensors.ts";
import { goldenNames, readGolden } from "./golden.ts";

const MAX_FOLDER_BYTES = 300_000;
const CHECKPOINTS = [
  ...[
    "gpt2",
    "gpt2_published",
    "llama",
    "llama3",
    "llama_bias",
    "llama_dynamic",
    "llama_f16",
    "llama_linear",
  ],
  ...["llama_sharded", "mistral", "mistral_window", "phi3", "qwen2", "qwen2_bf16", "qwen2_untied", "qwen3"],
];

const readJson = (...path: string[]) => JSON.parse(readFileSync(join(...path), "utf8"));

/** Shapes of all tensors of a checkpoint, single or sharded. */
async function shapesOf(folder: string): Promise<Map<string, readonly number[]>> {
  const shapes = new Map<string, readonly number[]>();
  for (const name of readdirSync(folder).filter((file) => /^model.*\.safetensors$/.test(file))) {
    using file = await openSafetensors(join(folder, name));
    for (const [tensor, { shape }] of file.header.tensors) shapes.set(tensor, shape);
  }
  return shapes;
}

/** The checkpoint's parameters as transformers names them; published GPT-2 leaves out the prefix and adds the mask. */
function parameterNames(name: string, shapes: ReadonlyMap<string, unknown>): string[] {
  if (name !== "gpt2_published") return [...shapes.keys()].sort();
  const parameters = [...shapes.keys()].filter((tensor) => !tensor.endsWith(".attn.bias"));
  assert.equal(parameters.length, shapes.size - 1);
  return parameters.map((tensor) => `transformer.${tensor}`).sort();
}

/** The mean cross-entropy over all next tokens, from the logits. */
function lossOf(sequences: number[][], logits: Float32Array[]): number {
  const losses = sequences.flatMap((ids, i) =>
    ids.slice(1).map((label, t) => {
      const row = logits[i].subarray(t * 48, (t + 1) * 48);
      return Math.log(row.reduce((sum, value) => sum + Math.exp(value), 0)) - row[label];
    })
  );
  return losses.reduce((a, b) => a + b) / losses.length;
}

Deno.test("every golden checkpoint is there", () => {
  assert.deepEqual(goldenNames().filter((name) => !name.endsWith("_lora")), CHECKPOINTS);
});

for (const name of goldenNames()) {
  Deno.test(`golden ${name}: small, logits of every row, and the loss is theirs`, async () => {
    const { folder, sequences, logits, loss } = await readGolden(name);
    const sizeBytes = readdirSync(folder).reduce((sum, file) => sum + statSync(join(folder, file)).size, 0);
    assert.ok(sizeBytes < MAX_FOLDER_BYTES, `${sizeBytes} bytes`);
    assert.notEqual(sequences[0].length, sequences[1].length);
    assert.deepEqual(logits.map((rows) => rows.length), sequences.map((ids) => ids.length * 48));
    assert.ok(Math.abs(lossOf(sequences, logits) - loss) < 1e-6);
  });
}

for (const name of CHECKPOINTS) {
  Deno.test(`golden ${name}: a gradient for every parameter, in its shape`, async () => {
    const { folder, shapes, gradients } = await readGolden(name);
    const stored = await shapesOf(folder);
    assert.deepEqual([...gradients.keys()].sort(), parameterNames(name, stored));
    const prefix = name === "gpt2_published" ? "transformer." : "";
    for (const [parameter, shape] of shapes) {
      assert.deepEqual(shape, stored.get(parameter.slice(prefix.length)), parameter);
      assert.ok(gradients.get(parameter)!.some((value) => value !== 0), parameter);
    }
  });

  Deno.test(`golden ${name}: config.json says the sizes, in the layout that golden.json names`, async () => {
    const { folder, shapes } = await readGolden(name);
    const config = readJson(folder, "config.json");
    const embedding = shapes.get("model.embed_tokens.weight") ?? shapes.get("transformer.wte.weight");
    assert.deepEqual(embedding, [config.vocab_size, config.hidden_size ?? config.n_embd]);
    assert.equal(shapes.has("lm_head.weight"), !(config.tie_word_embeddings ?? config.model_type === "gpt2"));
    const layout = readJson(folder, "golden.json").transformers;
    const other = join(folder, "config_other_layout.json");
    assert.equal(existsSync(other), config.model_type !== "gpt2");
    const layouts = [{ config, layout }];
    if (existsSync(other)) layouts.push({ config: readJson(other), layout: 9 - layout });
    for (const { config, layout } of layouts.filter(({ config }) => config.model_type !== "gpt2")) {
      assert.equal("rope_parameters" in config, layout === 5);
      assert.equal("rope_theta" in config, layout === 4);
    }
  });
}
