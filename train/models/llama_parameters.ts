/**
 * The named parameters of Llama models and their relatives.
 *
 * @module
 */
import type { LlamaConfig, LlamaSizes } from "./llama_config.ts";

/** The token embedding. */
export const EMBEDDING = "model.embed_tokens.weight";
/** The output head, where it is not the embedding. */
export const HEAD = "lm_head.weight";

/** Which parameters a layer has. */
export interface LlamaLayout {
  /** Whether queries, keys and values have biases. */
  readonly qkvBias: boolean;
  /** Whether attention's output projection has a bias. */
  readonly outputBias: boolean;
  /** Whether the MLP's projections have biases. */
  readonly mlpBias: boolean;
  /** Whether query and key heads are normalised. */
  readonly headNorms: boolean;
  /** Whether `qkv_proj` and `gate_up_proj` are one matrix each in the file (Phi-3), not three and two. */
  readonly isFused: boolean;
}

/** A linear layer of the model. */
interface Projection {
  /** Without `.weight`. */
  readonly name: string;
  readonly rows: number;
  readonly columns: number;
  readonly bias: boolean;
}

/** What shares an input, in order: the products of a layer. */
function projections(sizes: LlamaSizes, layout: LlamaLayout, layer: number) {
  const { hidden_size: C, intermediate_size: F, head_dim: D } = sizes;
  const [Q, K] = [sizes.num_attention_heads * D, sizes.num_key_value_heads * D];
  const { qkvBias, mlpBias, outputBias, isFused } = layout;
  const module = (bias: boolean) => (name: string, rows: number, columns: number): Projection => ({
    name: `model.layers.${layer}.${name}_proj`,
    ...{ rows, columns, bias },
  });
  const [input, output, mlp] = [module(qkvBias), module(outputBias), module(mlpBias)];
  return {
    qkv: isFused
      ? [input("self_attn.qkv", Q + 2 * K, C)]
      : [input("self_attn.q", Q, C), input("self_attn.k", K, C), input("self_attn.v", K, C)],
    output: [output("self_attn.o", C, Q)],
    gateUp: isFused ? [mlp("mlp.gate_up", 2 * F, C)] : [mlp("mlp.gate", F, C), mlp("mlp.up", F, C)],
    down: [mlp("mlp.down", C, F)],
  };
}

/**
 * The linear layers that a layer's products are made of, without `.weight`.
 *
 * @param sizes The configuration.
 * @param layout Which parameters a layer has.
 * @param layer From 0.
 */
export function llamaModules(
  sizes: LlamaSizes,
  layout: LlamaLayout,
  layer: number,
): Record<keyof ReturnType<typeof projections>, string[]> {
  const { qkv, output, gateUp, down } = projections(sizes, layout, layer);
  const names = (group: Projection[]) => group.map(({ name }) => name);
  return { qkv: names(qkv), output: names(output), gateUp: names(gateUp), down: names(down) };
}

/**
 * The parameters of a relative of Llama, in the order of the forward pass.
 *
 * @param sizes The configuration.
 * @param layout Which parameters a layer has.
 * @returns Name -> shape. `lm_head.weight` is absent where it is tied to the embedding.
 */
export function llamaFamilyShapes(sizes: LlamaSizes, layout: LlamaLayout): Map<string, number[]> {
  const { vocab_size: V, hidden_size: C, head_dim: D } = sizes;
  const shapes = new Map<string, number[]>([[EMBEDDING, [V, C]]]);
  const add = (group: Projection[]) => {
    for (const { name, rows, columns } of group) shapes.set(`${name}.weight`, [rows, columns]);
    for (const { name, rows, bias } of group) if (bias) shapes.set(`${name}.bias`, [rows]);
  };
  for (let layer = 0; layer < sizes.num_hidden_layers; layer++) {
    const prefix = `model.layers.${layer}`;
    const { qkv, output, gateUp, down } = projections(sizes, layout, layer);
    shapes.set(`${prefix}.input_layernorm.weight`, [C]);
    add(qkv);
    if (layout.headNorms) {
      for (const part of ["q", "k"]) shapes.set(`${prefix}.self_attn.${part}_norm.weight`, [D]);
    }
    add(output);
    shapes.set(`${prefix}.post_attention_layernorm.weight`, [C]);
    add(gateUp);
    add(down);
  }
  shapes.set("model.norm.weight", [C]);
  if (!sizes.tie_word_embeddings) shapes.set(HEAD, [V, C]);
  return shapes;
}

/**
 * Parameters that one product reads together: queries, keys and values of a layer, and its gate and up projections, and
 * the biases of each.
 *
 * @param sizes The configuration.
 * @param layout Which parameters a layer has.
 * @returns Groups for `createParameters`, in the order of the forward pass.
 */
export function llamaFamilyGroups(sizes: LlamaSizes, layout: LlamaLayout): string[][] {
  return Array.from({ length: sizes.num_hidden_layers }, (_, layer) => {
    const { qkv, gateUp } = projections(sizes, layout, layer);
    return [qkv, gateUp].filter((group) => group.length > 1).flatMap((group) => {
      const named = (part: string) => group.map(({ name }) => `${name}.${part}`);
      return group[0].bias ? [named("weight"), named("bias")] : [named("weight")];
    });
  }).flat();
}

/** Which parameters a layer of a Llama has. */
export function llamaLayout(config: LlamaConfig): LlamaLayout {
  const { attention_bias, mlp_bias } = config;
  return {
    ...{ qkvBias: attention_bias, outputBias: attention_bias, mlpBias: mlp_bias },
    ...{ headNorms: false, isFused: false },
  };
}

/**
 * The parameters of a Llama model under Hugging Face's names, weights `[out, in]`, in the order of the forward pass.
 *
 * @param config The configuration.
 * @returns Name -> shape. `lm_head.weight` is absent where it is tied to the embedding.
 * @example
 * ```ts
 * import { parseLlamaConfig } from "./llama_config.ts";
 *
 * const sizes = { vocab_size: 16, hidden_size: 64, intermediate_size: 128, num_hidden_layers: 2, num_attention_heads: 4 };
 * const shapes = llamaParameterShapes(parseLlamaConfig({ model_type: "llama", ...sizes }, "config.json"));
 * if (shapes.get("model.layers.1.mlp.down_proj.weight")?.join() !== "64,128") throw new Error("down_proj is [C, F]");
 * ```
 */
export function llamaParameterShapes(config: LlamaConfig): Map<string, number[]> {
  return llamaFamilyShapes(config, llamaLayout(config));
}
