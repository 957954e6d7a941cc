/**
 * The GPT-2 architecture (Radford et al. 2019, Language Models are Unsupervised Multitask Learners).
 * @module
 */
import { activation } from "../../engine/ops/activation.ts";
import { add } from "../../engine/ops/add.ts";
import { embedding } from "../../engine/ops/embedding.ts";
import { layerNorm } from "../../engine/ops/layer_norm.ts";
import type { Tensor } from "../../engine/tensor.ts";
import type { Architecture, EmbedInputs, LayerInputs } from "./architecture.ts";
import { type Gpt2Config, gpt2ConfigJson } from "./gpt2_config.ts";
import { linear } from "./linear.ts";
import type { Model } from "./model.ts";

const PREFIX = "transformer.";
const EMBEDDING = `${PREFIX}wte.weight`;
const POSITIONS = `${PREFIX}wpe.weight`;
const HEAD = "lm_head.weight";

/**
 * @param config of a GPT-2
 * @returns its parameters and its forward pass
 */
export function gpt2Architecture(config: Gpt2Config): Architecture {
  const { n_head: heads, n_layer: layers, n_embd: hidden, initializer_range: range } = config;
  const { tie_word_embeddings: isTied, layer_norm_epsilon: eps } = config;
  return {
    dimensions: {
      vocab: config.vocab_size,
      ...{ hidden, layers, heads, kvHeads: heads, headDim: hidden / heads },
      positions: config.n_positions,
    },
    shapes: gpt2ParameterShapes(config),
    groups: [],
    weightLayout: "in_out",
    embedding: EMBEDDING,
    positionEmbedding: POSITIONS,
    head: isTied ? EMBEDDING : HEAD,
    ...(isTied ? { tiedHead: HEAD } : {}),
    optionalPrefix: PREFIX,
    // The causal mask and what it writes, which old versions of transformers saved.
    ignored: /^(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)$/,
    initial(name, shape) {
      if (shape.length === 1) return { value: name.endsWith(".bias") ? 0 : 1 };
      // What writes to the residual stream is scaled by 1 / sqrt(2 L).
      return { std: name.endsWith("c_proj.weight") ? range / Math.sqrt(2 * layers) : range };
    },
    embed: gpt2Embed,
    layer: (model, h, inputs) => gpt2Layer(model, h, { ...inputs, eps }),
    finalNorm: (model, h) => norm(model, h, { name: `${PREFIX}ln_f`, eps }),
    configJson: (options) => gpt2ConfigJson(config, options),
  };
}

/** In the order of the forward pass; matrices of linear layers are `[in, out]` (transformers' Conv1D). */
function gpt2ParameterShapes(config: Gpt2Config): Map<string, number[]> {
  const { vocab_size: V, n_embd: C, n_positions, n_layer, n_inner } = config;
  const F = n_inner ?? 4 * C;
  const shapes = new Map<string, number[]>([[EMBEDDING, [V, C]], [POSITIONS, [n_positions, C]]]);
  const add = (name: string, ...shape: number[]) => {
    shapes.set(`${PREFIX}${name}.weight`, shape);
    shapes.set(`${PREFIX}${name}.bias`, shape.slice(-1));
  };
  for (let layer = 0; layer < n_layer; layer++) {
    add(`h.${layer}.ln_1`, C);
    add(`h.${layer}.attn.c_attn`, C, 3 * C);
    add(`h.${layer}.attn.c_proj`, C, C);
    add(`h.${layer}.ln_2`, C);
    add(`h.${layer}.mlp.c_fc`, C, F);
    add(`h.${layer}.mlp.c_proj`, F, C);
  }
  add("ln_f", C);
  if (!config.tie_word_embeddings) shapes.set(HEAD, [V, C]);
  return shapes;
}

/** wte[token] + wpe[position] */
function gpt2Embed(
  { parameters, dtype: type }: Model,
  { tokens, positions, positionIndex }: EmbedInputs,
): Tensor {
  const ofTokens = embedding(parameters.shards(EMBEDDING), tokens, { type });
  return add(
    ofTokens,
    embedding(parameters.shards(POSITIONS), positionIndex ?? { ids: positions }, { type }),
  );
}

/** h + c_proj(attention(c_attn)), then h + c_proj(gelu(c_fc)), each on a normalised h. */
function gpt2Layer(
  model: Model,
  h: Tensor,
  { layer, attend, eps }: LayerInputs & { eps: number },
): Tensor {
  const named = (name: string) => `${PREFIX}h.${layer}.${name}`;
  const x = norm(model, h, { name: named("ln_1"), eps });
  // c_attn's columns are queries, keys and values, side by side as attention reads them.
  const qkv = linear(model, x, [named("attn.c_attn")]);
  h = linear(model, attend(qkv), [named("attn.c_proj")], { residual: h });

  const y = norm(model, h, { name: named("ln_2"), eps });
  const inner = activation(linear(model, y, [named("mlp.c_fc")]), { kind: "gelu_tanh" });
  return linear(model, inner, [named("mlp.c_proj")], { residual: h });
}

function norm({ parameters }: Model, h: Tensor, { name, eps }: { name: string; eps: number }): Tensor {
  return layerNorm(h, {
    weight: parameters.get(`${name}.weight`),
    bias: parameters.get(`${name}.bias`),
    eps,
  });
}
