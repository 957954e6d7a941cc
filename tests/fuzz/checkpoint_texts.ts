/**
 * Whole texts of checkpoints, to be damaged.
 *
 * @module
 */
/** A safetensors header. */
export const HEADER = JSON.stringify({
  __metadata__: { format: "pt" },
  a: { dtype: "F32", shape: [2, 3], data_offsets: [0, 24] },
  "b.weight": { dtype: "BF16", shape: [4], data_offsets: [24, 32] },
});

/** A model.safetensors.index.json. */
export const INDEX = JSON.stringify({
  metadata: { total_size: 32 },
  weight_map: { a: "model-00001-of-00002.safetensors", "b.weight": "model-00002-of-00002.safetensors" },
});
