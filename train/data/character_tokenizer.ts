/**
 * A tokenizer of single characters, for generated tasks with a small alphabet, written as the files that Hugging Face's
 * libraries read.
 *
 * @module
 */
import type { TokenizerFiles } from "./tokenizer_files.ts";

/** The token that stands for characters outside the alphabet, and fills up. */
const UNKNOWN = "<unk>";

/**
 * Makes tokenizer.json and tokenizer_config.json of a tokenizer with one token per character: the ids count the alphabet
 * from 0 in its order (for an alphabet that begins with the digits, a digit's id is its value), then the end-of-sequence
 * token where it is not in the alphabet, then `<unk>`, which is the padding token too.
 *
 * It is a byte-pair encoding without merges, so that every library that reads tokenizer.json can run it.
 *
 * @param alphabet The characters, each once.
 * @param options The end-of-sequence token.
 * @returns The files, for `createTokenizer` and for a saved model.
 * @throws {RangeError} When a character occurs twice.
 * @example
 * ```ts
 * const files = characterTokenizerFiles("0123456789+-:,$", { eos: "$" });
 * const json = JSON.parse(new TextDecoder().decode(files.get("tokenizer.json")));
 * if (Object.keys(json.model.vocab).length !== 16) throw new Error("15 characters and <unk>");
 * ```
 */
export function characterTokenizerFiles(alphabet: string, options: { eos: string }): TokenizerFiles {
  const { eos } = options;
  const characters = Array.from(alphabet);
  const twice = characters.find((character, i) => characters.indexOf(character) !== i);
  if (twice !== undefined) {
    throw new RangeError(
      `Cannot make a character tokenizer: expected each character once, found two ${JSON.stringify(twice)}`,
    );
  }
  const tokens = [...characters, ...(characters.includes(eos) ? [] : [eos]), UNKNOWN];
  const vocab = Object.fromEntries(tokens.map((token, id) => [token, id]));
  const special = (content: string) => ({
    ...{ id: vocab[content], content, single_word: false, lstrip: false, rstrip: false },
    ...{ normalized: false, special: true },
  });
  const tokenizer = {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [special(eos), special(UNKNOWN)],
    normalizer: null,
    pre_tokenizer: null,
    post_processor: null,
    decoder: { type: "Fuse" },
    model: {
      ...{
        type: "BPE",
        dropout: null,
        unk_token: UNKNOWN,
        continuing_subword_prefix: null,
        end_of_word_suffix: null,
      },
      ...{ fuse_unk: false, byte_fallback: false, ignore_merges: false, vocab, merges: [] },
    },
  };
  const config = {
    ...{ tokenizer_class: "PreTrainedTokenizerFast", eos_token: eos, unk_token: UNKNOWN, pad_token: UNKNOWN },
    ...{ bos_token: null, clean_up_tokenization_spaces: false },
  };
  const encode = (value: unknown) => new TextEncoder().encode(JSON.stringify(value, null, 2) + "\n");
  return new Map([["tokenizer.json", encode(tokenizer)], ["tokenizer_config.json", encode(config)]]);
}
