/**
 * The Llama architecture (arXiv 2302.13971), and the forward pass that its relatives share with it.
 * @module
 */
import { embedding } from "../../engine/ops/embedding.ts";
import { headNorm } from "../../engine/ops/head_norm.ts";
import { rmsNorm } from "../../engine/ops/rms_norm.ts";
import { rope } from "../../engine/ops/rope.ts";
import type { Tensor } from "../../engine/tensor.ts";
import type { Architecture, LayerInputs } from "./architecture.ts";
import { gatedLinear, linear } from "./linear.ts";
import { type LlamaConfig, llamaConfigJson, type LlamaSizes } from "./llama_config.ts";
import {
  EMBEDDING,
  HEAD,
  llamaFamilyGroups,
  llamaFamilyShapes,
  type LlamaLayout,
  llamaLayout,
  llamaModules,
} from "./llama_parameters.ts";
import type { Model } from "./model.ts";
import { mostRopePositions, scaledRopeTable } from "./rope_scaling.ts";

/** What tells a relative of Llama from Llama. */
export interface LlamaRelative extends Pick<Architecture, "configJson"> {
  /** Which parameters a layer has. */
  readonly layout: LlamaLayout;
  /** Tokens that a token sees, where there are fewer than in the longest sequence: no sequence may be longer. */
  readonly window?: number | null;
}

/**
 * @param config of a Llama
 * @returns its parameters and its forward pass
 */
export function llamaArchitecture(config: LlamaConfig): Architecture {
  return llamaRelative(config, {
    layout: llamaLayout(config),
    configJson: (options) => llamaConfigJson(config, options),
  });
}

/**
 * @param config of a relative of Llama
 * @param relative what is particular to it
 * @returns its parameters and its forward pass
 */
export function llamaRelative(config: LlamaSizes, relative: LlamaRelative): Architecture {
  const { layout, window, configJson } = relative;
  const { rms_norm_eps: eps, tie_word_embeddings: isTied, num_hidden_layers: layers } = config;
  const within = (positions: number) => Math.min(positions, window ?? Infinity);
  return {
    dimensions: {
      vocab: config.vocab_size,
      hidden: config.hidden_size,
      layers,
      heads: config.num_attention_heads,
      kvHeads: config.num_key_value_heads,
      headDim: config.head_dim,
      positions: within(config.max_position_embeddings),
      mostPositions: within(mostRopePositions(config)),
    },
    shapes: llamaFamilyShapes(config, layout),
    groups: llamaFamilyGroups(config, layout),
    weightLayout: "out_in",
    embedding: EMBEDDING,
    head: isTied ? EMBEDDING : HEAD,
    ...(isTied ? { tiedHead: HEAD } : {}),
    // RoPE's frequencies, which old versions of transformers saved: computed here, never read.
    ignored: /^model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq$/,
    initial(name, shape) {
      if (shape.length === 1) return { value: name.endsWith(".bias") ? 0 : 1 };
      // What writes to the residual stream is scaled by 1 / sqrt(2 L) (GPT-2).
      const writes = /(o_proj|down_proj)\.weight$/.test(name);
      const range = config.initializer_range;
      return { std: writes ? range / Math.sqrt(2 * layers) : range };
    },
    ropeTable: (gpu, positions) => scaledRopeTable(gpu, config, positions),
    embed: ({ parameters, dtype }, { tokens }) =>
      embedding(parameters.shards(EMBEDDING), tokens, { type: dtype }),
    layer: (model, h, inputs) => llamaLayer(model, h, { ...inputs, config, layout }),
    finalNorm: ({ parameters }, h) => rmsNorm(h, parameters.get("model.norm.weight"), { eps }),
    configJson,
  };
}

/** h + o(attention(rope(q), rope(k), v)), then h + down(silu(gate) up), each on a normalised h. */
function llamaLayer(
  model: Model,
  h: Tensor,
  { layer, positions, attend, config, layout }: LayerInputs & { config: LlamaSizes; layout: LlamaLayout },
): Tensor {
  const { num_attention_heads: heads, num_key_value_heads: kvHeads, rms_norm_eps: eps } = config;
  const weight = (name: string) => model.parameters.get(`model.layers.${layer}.${name}.weight`);
  const modules = llamaModules(config, layout, layer);

  const x = rmsNorm(h, weight("input_layernorm"), { eps });
  let qkv = linear(model, x, modules.qkv);
  if (layout.headNorms) {
    const [q, k] = [weight("self_attn.q_norm"), weight("self_attn.k_norm")];
    qkv = headNorm(qkv, { q, k, heads, kvHeads, eps });
  }
  qkv = rope(qkv, positions, model.rope!, { heads: heads + kvHeads });
  h = linear(model, attend(qkv), modules.output, { residual: h });

  const y = rmsNorm(h, weight("post_attention_layernorm"), { eps });
  return linear(model, gatedLinear(model, y, modules.gateUp), modules.down, { residual: h });
}
