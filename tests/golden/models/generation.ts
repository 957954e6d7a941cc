/**
 * Reads generation.json, which make_generation.py wrote with transformers and whose header says what is in it.
 *
 * @module
 */
import { readFileSync } from "node:fs";

/** A greedy continuation. */
export interface GreedyCase {
  /** `stories260K`, in the shared data, or a golden folder. */
  model: string;
  /** Token ids to begin with. */
  prompt: number[];
  /** 1 is none. It counts the prompt's tokens too. */
  repetition_penalty: number;
  /** The token that ends generation, null for none. */
  eos_token_id: number | null;
  /** The most tokens to append. */
  max_new_tokens: number;
  /** Token ids appended, the end token included. */
  continuation: number[];
  /** How far the best score led in the closest step. */
  smallest_gap: number;
}

/** The distribution that a token is drawn from; an option that is off is null. */
export interface WarpedCase {
  /** `[V]` logits, exact in float32. */
  logits: number[];
  /** Token ids so far, for the repetition penalty. */
  context: number[];
  /** Applied second. */
  temperature: number | null;
  /** Applied third. May exceed V. */
  top_k: number | null;
  /** Applied last, to the probabilities that top_k left. */
  top_p: number | null;
  /** Applied first. */
  repetition_penalty: number | null;
  /** `[V]`, sum 1, 0 where a token cannot be drawn. */
  probabilities: number[];
}

/** Everything in generation.json. */
export interface GoldenGeneration {
  /** Continuations of several models. */
  greedy: GreedyCase[];
  /** Distributions of one logits vector, then of one with equal logits. */
  warped: WarpedCase[];
}

/**
 * Reads the golden generations.
 *
 * @returns All cases.
 */
export function readGeneration(): GoldenGeneration {
  return JSON.parse(readFileSync(new URL("../generation.json", import.meta.url), "utf8"));
}
