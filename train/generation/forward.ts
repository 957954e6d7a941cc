/**
 * A model's forward pass over new tokens of sequences whose earlier tokens are in a key/value cache.
 * @module
 */
import { Scope } from "../../engine/scope.ts";
import { attention } from "../../engine/ops/attention.ts";
import { cachedAttention } from "../../engine/ops/cached_attention.ts";
import { writeCache } from "../../engine/ops/kv_cache.ts";
import type { SequenceBounds } from "../../engine/ops/sequence_bounds.ts";
import { scope, type Tensor } from "../../engine/tensor.ts";
import type { Model } from "../models/model.ts";
import type { KeyValueCache } from "./cache.ts";

/** N new tokens. */
export interface CachedTokens {
  /** `[N]` */
  readonly ids: Tensor;
  /** `[N]`: the sequence's place in the cache; any number past its sequences marks padding. */
  readonly slots: Tensor;
  /** `[N]`: where each is in its sequence. */
  readonly positions: Tensor;
  /** Most tokens that one of them sees: itself and those before it. */
  readonly length: number;
  /** Of the batch itself, where no token sees any that is not in it: whole prompts. */
  readonly bounds?: SequenceBounds;
}

/**
 * The last layer's hidden states of new tokens, whose keys and values go to the cache. Nothing may record: what a layer
 * makes is given back at once.
 *
 * @param model the model
 * @param cache of the model
 * @param batch N tokens
 * @returns `[N, C]`, owned by the scope around
 */
export function cachedHiddenStates(model: Model, cache: KeyValueCache, batch: CachedTokens): Tensor {
  const { gpu, architecture } = model;
  const { layers, headDim, heads, kvHeads } = architecture.dimensions;
  const { ids, slots, positions, length, bounds } = batch;
  const own = new Scope();
  gpu.pushScope(own);
  try {
    let h = architecture.embed(model, { tokens: { ids }, positions });
    for (let layer = 0; layer < layers; layer++) {
      const place = { headDim, heads, kvHeads, slots, positions };
      const attend = (qkv: Tensor) => {
        writeCache(qkv, cache.layers[layer], place);
        return bounds
          ? attention(qkv, { headDim, heads, kvHeads, bounds })
          : cachedAttention(qkv, cache.layers[layer], { ...place, length });
      };
      const next = scope(gpu, () => architecture.layer(model, h, { layer, positions, attend }));
      if (next.range.allocation !== h.range.allocation) own.releaseEarly(h.range.allocation);
      h = next;
    }
    gpu.moveOut(h.range.allocation);
    return h;
  } finally {
    gpu.popScope(own);
  }
}
