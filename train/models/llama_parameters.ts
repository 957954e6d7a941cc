/**
 * The named parameters of a Llama model.
 *
 * @module
 */
import type { LlamaConfig } from "./llama_config.ts";

const EMBEDDING = "model.embed_tokens.weight";
const HEAD = "lm_head.weight";

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
