/**
 * The Llama architecture (arXiv 2302.13971).
 * @module
 */
import { embedding } from "../../engine/ops/embedding.ts";
import { rmsNorm } from "../../engine/ops/rms_norm.ts";
import { rope, ropeTable } from "../../engine/ops/rope.ts";
import type { Tensor } from "../../engine/tensor.ts";
import type { Architecture, LayerInputs } from "./architecture.ts";
import { gatedLinear, linear } from "./linear.ts";
import { type LlamaConfig, llamaConfigJson } from "./llama_config.ts";
import { llamaParameterGroups, llamaParameterShapes } from "./llama_parameters.ts";
import type { Model } from "./model.ts";

const EMBEDDING = "model.embed_tokens.weight";
const HEAD = "lm_head.weight";

/**
 * @param config of a Llama
 * @returns its parameters and its forward pass
 */
export function llamaArchitecture(config: LlamaConfig): Architecture {
  const { head_dim: headDim, rms_norm_eps: eps, tie_word_embeddings: isTied } = config;
  return {
    dimensions: {
      vocab: config.vocab_size,
      hidden: config.hidden_size,
      layers: config.num_hidden_layers,
      heads: config.num_attention_heads,
      kvHeads: config.num_key_value_heads,
      headDim,
      positions: config.max_position_embeddings,
    },
    shapes: llamaParameterShapes(config),
    groups: llamaParameterGroups(config),
    weightLayout: "out_in",
    embedding: EMBEDDING,
    head: isTied ? EMBEDDING : HEAD,
    ...(isTied ? { tiedHead: HEAD } : {}),
    // RoPE's frequencies, which old versions of transformers saved: computed here, never read.
    ignored: /^model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq$/,
    initial(name, shape) {
      if (shape.length === 1) return { value: 1 };
      // What writes to the residual stream is scaled by 1 / sqrt(2 L) (GPT-2).
      const writes = /(o_proj|down_proj)\.weight$/.test(name);
      const range = config.initializer_range;
      return { std: writes ? range / Math.sqrt(2 * config.num_hidden_layers) : range };
    },
    ropeTable: (gpu, positions) => ropeTable(gpu, { positions, headDim, theta: config.rope_theta }),
    embed: ({ parameters, dtype }, { tokens }) =>
      embedding(parameters.shards(EMBEDDING), tokens, { type: dtype }),
    layer: (model, h, inputs) => llamaLayer(model, h, { ...inputs, config }),
    finalNorm: ({ parameters }, h) => rmsNorm(h, parameters.get("model.norm.weight"), { eps }),
    configJson: (options) => llamaConfigJson(config, options),
  };
}

/** h + o(attention(rope(q), rope(k), v)), then h + down(silu(gate) up), each on a normalised h. */
function llamaLayer(
  model: Model,
  h: Tensor,
  { layer, positions, attend, config }: LayerInputs & { config: LlamaConfig },
): Tensor {
  const { num_attention_heads, num_key_value_heads, rms_norm_eps: eps } = config;
  const heads = num_attention_heads + num_key_value_heads;
  const named = (name: string) => `model.layers.${layer}.${name}`;
  const norm = (name: string) => rmsNorm(h, model.parameters.get(`${named(name)}.weight`), { eps });

  const x = norm("input_layernorm");
  const projections = ["q", "k", "v"].map((part) => named(`self_attn.${part}_proj`));
  const qkv = rope(linear(model, x, projections), positions, model.rope!, { heads });
  h = linear(model, attend(qkv), [named("self_attn.o_proj")], { residual: h });

  const y = norm("post_attention_layernorm");
  const gated = gatedLinear(model, y, [named("mlp.gate_proj"), named("mlp.up_proj")]);
  return linear(model, gated, [named("mlp.down_proj")], { residual: h });
}
