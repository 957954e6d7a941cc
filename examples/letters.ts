/**
 * What the examples train on, small enough for seconds on a CPU: after three letters, their order in the alphabet is
 * preferred to the reverse. Every word of three different letters is a record; each fifth is held out.
 *
 * @module
 */
import { characterTokenizerFiles, createTokenizer, type PreferenceRecord, type Tokenizer } from "../mod.ts";

const LETTERS = [..."abcdefgh"];

/** config.json of a Llama of 20,000 parameters. */
export const TINY_LLAMA = {
  model_type: "llama",
  vocab_size: 11,
  hidden_size: 32,
  intermediate_size: 64,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  max_position_embeddings: 16,
};

/** A tokenizer of single characters: the letters, `:`, the end `$`, and one for all others. */
export function letterTokenizer(): Tokenizer {
  return createTokenizer(characterTokenizerFiles(`${LETTERS.join("")}:`, { eos: "$" }), {
    source: "letters.ts",
  });
}

/**
 * The records, such as `{ prompt: "fad:", chosen: "adf", rejected: "fda" }`.
 *
 * @returns 268 to train on, 68 held out
 */
export function letterRecords(): Record<"training" | "heldOut", PreferenceRecord[]> {
  const words = LETTERS.flatMap((a) => LETTERS.flatMap((b) => LETTERS.map((c) => [a, b, c])))
    .filter((word) => new Set(word).size === word.length);
  const records = words.map((word, index) => {
    const sorted = word.toSorted();
    return {
      prompt: `${word.join("")}:`,
      chosen: sorted.join(""),
      rejected: sorted.toReversed().join(""),
      source: { file: "letters.ts", index },
    };
  });
  return {
    training: records.filter((_, index) => index % 5 !== 0),
    heldOut: records.filter((_, index) => index % 5 === 0),
  };
}
