/**
 * What tells one architecture from another: its parameters under Hugging Face's names, and the parts of its forward pass.
 * Everything around them (batches, the fused head, loading, adapters, decoding) is shared.
 * @module
 */
import type { DType } from "../../engine/dtype.ts";
import type { Gpu } from "../../engine/gpu.ts";
import type { TokenIndex } from "../../engine/ops/embedding.ts";
import type { Shape } from "../../engine/shape.ts";
import type { Tensor } from "../../engine/tensor.ts";
import type { Model } from "./model.ts";

/** The extents that every decoder has, whatever its config.json calls them. */
export interface Dimensions {
  /** V, rows of the embedding. */
  readonly vocab: number;
  /** C, the width of the residual stream. */
  readonly hidden: number;
  /** L. */
  readonly layers: number;
  /** H, heads of queries. */
  readonly heads: number;
  /** K, heads of keys and values, a divisor of H. */
  readonly kvHeads: number;
  /** D, the size of a head. */
  readonly headDim: number;
  /** The longest sequence the model can be given. */
  readonly positions: number;
  /** The longest it can be made for when asked, where that is more than `positions`. */
  readonly mostPositions?: number;
}

/** What the first layer is made from. */
export interface EmbedInputs {
  /** Of N tokens; the ids alone where no gradient is wanted. */
  readonly tokens: TokenIndex | Pick<TokenIndex, "ids">;
  /** `[N]`: where each token is in its sequence. */
  readonly positions: Tensor;
  /** Where each position occurs, for the gradient of `positionEmbedding`; may be absent where none is wanted. */
  readonly positionIndex?: TokenIndex;
}

/** What a layer reads besides the hidden states. */
export interface LayerInputs {
  /** From 0. */
  readonly layer: number;
  /** `[N]`: where each token is in its sequence. */
  readonly positions: Tensor;
  /**
   * Attention of the layer: over the batch itself in training, through the key/value cache when decoding.
   *
   * @param qkv `[N, (H + 2 K) D]`, rotated where the architecture rotates
   * @returns `[N, H D]`
   */
  readonly attend: (qkv: Tensor) => Tensor;
}

/** An architecture with its configuration filled in. */
export interface Architecture {
  /** The extents. */
  readonly dimensions: Dimensions;
  /** Every parameter under Hugging Face's name with its shape, in the order of the forward pass. */
  readonly shapes: ReadonlyMap<string, Shape>;
  /** Parameters that one product reads together: see `ParameterOptions.groups`. */
  readonly groups: readonly (readonly string[])[];
  /** How matrices of linear layers lie: `[out, in]`, or `[in, out]` in GPT-2's Conv1D. */
  readonly weightLayout: "out_in" | "in_out";
  /** The token embedding, `[V, C]`. */
  readonly embedding: string;
  /** `[positions, C]`: learned positions that are added to the token's embedding, for architectures that have them. */
  readonly positionEmbedding?: string;
  /** The output head, `[V, C]`: the embedding where the two are tied. */
  readonly head: string;
  /** A tensor under this name may be in a file too, if it equals the embedding bit by bit: the tied head. */
  readonly tiedHead?: string;
  /** What every name but the head's begins with, and what files of the model without its head leave out. */
  readonly optionalPrefix?: string;
  /** Tensors that files of this architecture may hold and that nothing reads. */
  readonly ignored: RegExp;
  /** Fresh weights: of which standard deviation, or which constant. */
  readonly initial: (name: string, shape: Shape) => { std: number } | { value: number };
  /** `[positions, D]` of `ropeTable`, for architectures that rotate; the model releases it. */
  readonly ropeTable?: (gpu: Gpu, positions: number) => Tensor;
  /** The first hidden states, `[N, C]`. */
  readonly embed: (model: Model, inputs: EmbedInputs) => Tensor;
  /** A layer, `[N, C]` to `[N, C]`. */
  readonly layer: (model: Model, h: Tensor, inputs: LayerInputs) => Tensor;
  /** The final norm, `[R, C]` to `[R, C]`. */
  readonly finalNorm: (model: Model, h: Tensor) => Tensor;
  /** What transformers reads as config.json, `torch_dtype` included. */
  readonly configJson: (options: { dtype: DType }) => Record<string, unknown>;
}
