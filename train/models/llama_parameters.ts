/**
 * The named parameters of a Llama model, and whether a checkpoint holds exactly those.
 *
 * @module
 */
import { CheckpointError, showFound } from "../errors.ts";
import type { LlamaConfig } from "./llama_config.ts";
import { weightDType, type WeightsReader } from "./safetensors.ts";

const EMBEDDING = "model.embed_tokens.weight";
const HEAD = "lm_head.weight";

/** RoPE's frequencies, which old versions of transformers saved: computed here, never read. */
const HARMLESS = /^model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq$/;

/**
 * The parameters of a Llama model under Hugging Face's names, weights `[out, in]`, in the order of the forward pass.
 *
 * @param config The configuration.
 * @returns Name -> shape. `lm_head.weight` is absent where it is tied to the embedding.
 * @example
 * ```ts
 * import { parseModelConfig } from "./config.ts";
 *
 * const sizes = { vocab_size: 16, hidden_size: 64, intermediate_size: 128, num_hidden_layers: 2, num_attention_heads: 4 };
 * const shapes = llamaParameterShapes(parseModelConfig({ model_type: "llama", ...sizes }, { file: "config.json" }));
 * if (shapes.get("model.layers.1.mlp.down_proj.weight")?.join() !== "64,128") throw new Error("down_proj is [C, F]");
 * ```
 */
export function llamaParameterShapes(config: LlamaConfig): Map<string, number[]> {
  const { vocab_size: V, hidden_size: C, intermediate_size: F, head_dim: D } = config;
  const queries = config.num_attention_heads * D;
  const keys = config.num_key_value_heads * D;
  const shapes = new Map<string, number[]>([[EMBEDDING, [V, C]]]);
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    const prefix = `model.layers.${layer}`;
    shapes.set(`${prefix}.input_layernorm.weight`, [C]);
    shapes.set(`${prefix}.self_attn.q_proj.weight`, [queries, C]);
    shapes.set(`${prefix}.self_attn.k_proj.weight`, [keys, C]);
    shapes.set(`${prefix}.self_attn.v_proj.weight`, [keys, C]);
    shapes.set(`${prefix}.self_attn.o_proj.weight`, [C, queries]);
    shapes.set(`${prefix}.post_attention_layernorm.weight`, [C]);
    shapes.set(`${prefix}.mlp.gate_proj.weight`, [F, C]);
    shapes.set(`${prefix}.mlp.up_proj.weight`, [F, C]);
    shapes.set(`${prefix}.mlp.down_proj.weight`, [C, F]);
  }
  shapes.set("model.norm.weight", [C]);
  if (!config.tie_word_embeddings) shapes.set(HEAD, [V, C]);
  return shapes;
}

/**
 * Parameters that one product reads together: queries, keys and values of a layer, and its gate and up projections.
 *
 * @param config The configuration.
 * @returns Groups for `createParameters`, in the order of the forward pass.
 * @example
 * ```ts
 * import { parseModelConfig } from "./config.ts";
 *
 * const sizes = { vocab_size: 16, hidden_size: 64, intermediate_size: 128, num_hidden_layers: 2, num_attention_heads: 4 };
 * const groups = llamaParameterGroups(parseModelConfig({ model_type: "llama", ...sizes }, { file: "config.json" }));
 * if (groups[1].join() !== "model.layers.0.mlp.gate_proj.weight,model.layers.0.mlp.up_proj.weight") throw new Error();
 * ```
 */
export function llamaParameterGroups(config: LlamaConfig): string[][] {
  return Array.from({ length: config.num_hidden_layers }, (_, layer) => {
    const names = (parts: string[]) => parts.map((part) => `model.layers.${layer}.${part}_proj.weight`);
    return [names(["self_attn.q", "self_attn.k", "self_attn.v"]), names(["mlp.gate", "mlp.up"])];
  }).flat();
}

/**
 * Holds an open checkpoint against the configuration, before any weight is loaded: every parameter there, of the right
 * shape and of a readable type, and nothing else, because a tensor that is silently left out is a different model.
 *
 * Two kinds of tensor are passed over: RoPE's `inv_freq`, and a stored `lm_head.weight` where config.json ties it to the
 * embedding, if and only if the two are equal bit by bit (some tools save both; when they differ, it is unclear which the
 * file means).
 *
 * @param file The open checkpoint.
 * @param config The configuration from config.json beside it.
 * @throws {CheckpointError} Naming the tensor and what is wrong with it.
 */
export async function checkLlamaCheckpoint(file: WeightsReader, config: LlamaConfig): Promise<void> {
  const shapes = llamaParameterShapes(config);
  for (const [name, shape] of shapes) {
    const entry = file.tensors.get(name);
    if (entry === undefined) {
      throw refuse(file, name, { expected: `shape ${showFound(shape)}`, found: "no such tensor" });
    }
    checkShape(file, name, { shape });
    weightDType(entry);
  }
  for (const name of file.tensors.keys()) {
    if (shapes.has(name) || HARMLESS.test(name)) continue;
    if (name === HEAD) await checkTiedHead(file, shapes.get(EMBEDDING)!);
    else throw refuse(file, name, { expected: "no such tensor by config.json", found: "one" });
  }
}

function refuse(
  file: WeightsReader,
  name: string,
  what: { expected: string; found: string },
): CheckpointError {
  return new CheckpointError(
    `Cannot read ${file.path}: tensor ${
      JSON.stringify(name)
    }: expected ${what.expected}, found ${what.found}`,
  );
}

function checkShape(file: WeightsReader, name: string, options: { shape: number[] }): void {
  const expected = showFound(options.shape);
  const found = showFound(file.tensors.get(name)!.shape);
  if (found !== expected) throw refuse(file, name, { expected: `shape ${expected} by config.json`, found });
}

/** Rows compared at a time: 64 MiB at most for the widest of rows, 4 MiB for usual ones. */
const COMPARED_ROWS = 256;

async function checkTiedHead(file: WeightsReader, shape: number[]): Promise<void> {
  checkShape(file, HEAD, { shape });
  for (let first = 0; first < shape[0]; first += COMPARED_ROWS) {
    const rows = [first, Math.min(first + COMPARED_ROWS, shape[0])] as const;
    const [head, embedding] = [await file.readStored(HEAD, rows), await file.readStored(EMBEDDING, rows)];
    if (head.dtype === embedding.dtype && head.bytes.every((byte, i) => byte === embedding.bytes[i])) {
      continue;
    }
    const found = `other values between rows ${rows[0]} and ${rows[1]}`;
    throw refuse(file, HEAD, {
      expected: `the values of ${EMBEDDING}, as tie_word_embeddings is true`,
      found,
    });
  }
}
