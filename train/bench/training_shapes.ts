/**
 * Sizes of the models and batches that are measured: plain data, which flags are made of.
 * @module
 */

/** Sizes of a Llama with an untied head, and of a batch. */
export interface TrainingShape {
  readonly layers: number;
  readonly hidden: number;
  readonly heads: number;
  readonly mlp: number;
  readonly vocabulary: number;
  /** Sequences of an SFT batch, pairs of a DPO batch. */
  readonly batch: number;
  /** Tokens of every sequence. */
  readonly tokens: number;
}

/**
 * By the name that a flag takes. `bench` is the Llama closest to the 940,800 parameters of a GPT-2 of 4 layers, C = 128,
 * 4 heads, F = 512, V = 512, 128 positions and an untied head, the model that other engines were measured with: 941,184
 * parameters. `tiny` only shows that everything runs. The others have the layers, widths and vocabularies of GPT-2's family, three MLP matrices of two thirds
 * its width in place of two, and the batches that other engines name: for a GPU.
 */
export const TRAINING_SHAPES = {
  tiny: { layers: 1, hidden: 32, heads: 2, mlp: 64, vocabulary: 128, batch: 2, tokens: 32 },
  bench: { layers: 4, hidden: 128, heads: 4, mlp: 356, vocabulary: 512, batch: 8, tokens: 128 },
  "gpt2-124m": {
    layers: 12,
    hidden: 768,
    heads: 12,
    mlp: 2048,
    vocabulary: 50_257,
    batch: 8,
    tokens: 1024,
  },
  distilgpt2: { layers: 6, hidden: 768, heads: 12, mlp: 2048, vocabulary: 50_257, batch: 1, tokens: 512 },
  "gpt2-medium": {
    layers: 24,
    hidden: 1024,
    heads: 16,
    mlp: 2736,
    vocabulary: 50_257,
    batch: 1,
    tokens: 512,
  },
} as const satisfies Record<string, TrainingShape>;

/** A name in {@link TRAINING_SHAPES}. */
export type ShapeName = keyof typeof TRAINING_SHAPES;

/** Every name, for flags. */
export const SHAPE_NAMES = Object.keys(TRAINING_SHAPES) as [ShapeName, ...ShapeName[]];
