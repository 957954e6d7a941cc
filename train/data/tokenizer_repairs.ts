/**
 * Where `@huggingface/tokenizers` 0.2.0 gives other tokens or texts than the reference library in Rust, and what mends
 * it. Each difference is replaced in the one object that has it, so that everything else stays the library's.
 *
 * - The byte-level pre-tokenizer means JavaScript's `\s`, which has U+FEFF and lacks U+0085: `\ufeff's` was cut elsewhere.
 * - A BPE drops characters that have no token after merging, not before: what stands around them was not merged.
 * - Added tokens that must stand alone (`single_word`) were found inside words.
 * - A run of byte tokens lost a leading U+FEFF, and gave one U+FFFD for several broken bytes.
 * - Tokens of a byte-level vocabulary with characters that stand for no byte became NUL bytes.
 *
 * One difference stays: the Rust library (0.23.3) runs added tokens through the byte-level decoder too, so that it writes
 * `<|É|>` back as `<|\ufffd|>`; here the added token comes back as it is.
 *
 * @module
 */
import {
  BPE,
  ByteFallbackDecoder,
  ByteLevelDecoder,
  ByteLevelPreTokenizer,
  type Decoder,
  type PreTokenizer,
  SequenceDecoder,
  SequencePreTokenizer,
  type Tokenizer as HuggingFaceTokenizer,
} from "@huggingface/tokenizers";

/** GPT-2's pattern with Unicode's White_Space, as the Rust library's `\s` is. */
const BYTE_LEVEL_PATTERN =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;

/** What `\w` means to the Rust library. */
const ENDS_WITH_WORD = /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]$/u;
const STARTS_WITH_WORD = /^[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]/u;

interface Splitter {
  split(text: string): string[];
}

/** Contents of added tokens, as written and as the normalizer leaves them. */
interface AddedTokens {
  readonly all: ReadonlySet<string>;
  readonly singleWords: ReadonlySet<string>;
}

/**
 * Mends a tokenizer of the library in place.
 *
 * @param inner The tokenizer.
 * @param added The added tokens of tokenizer.json.
 */
export function repairTokenizer(
  inner: HuggingFaceTokenizer,
  added: readonly { content: string; single_word?: unknown }[],
): void {
  repairPreTokenizer(inner.pre_tokenizer);
  repairDecoder(inner.decoder);
  const { model } = inner;
  if (model instanceof BPE) repairUnknowns(model);
  const singles = added.filter((token) => token.single_word === true);
  if (singles.length === 0) return;
  const forms = (tokens: typeof added) =>
    new Set(tokens.flatMap(({ content }) => [content, inner.normalizer?.normalize(content) ?? content]));
  const tokens = { all: forms(added), singleWords: forms(singles) };
  // Private in its types only; there is no other place where a found token could be refused.
  const splitters = inner as unknown as Record<"splitter_unnormalized" | "splitter_normalized", Splitter>;
  for (const key of ["splitter_unnormalized", "splitter_normalized"] as const) {
    const original = splitters[key];
    splitters[key] = { split: (text) => joinInsideWords(original.split(text), tokens) };
  }
}

function repairPreTokenizer(preTokenizer: PreTokenizer | null): void {
  if (preTokenizer instanceof SequencePreTokenizer) preTokenizer.tokenizers.forEach(repairPreTokenizer);
  if (preTokenizer instanceof ByteLevelPreTokenizer) preTokenizer.pattern = BYTE_LEVEL_PATTERN;
}

/** A BPE without unknown token and byte fallback has nothing for a character that is not in its vocabulary. */
function repairUnknowns(model: BPE): void {
  // The types know undefined; files say null.
  const unknown: string | null | undefined = model.unk_token;
  if (typeof unknown === "string" || model.byte_fallback || model.end_of_word_suffix) return;
  const merge = model.bpe.bind(model);
  const isKnown = (character: string) => model.tokens_to_ids.has(character);
  Object.assign(model, { bpe: (token: string) => merge(Array.from(token).filter(isKnown).join("")) });
}

/** Undoes the cuts at tokens that must stand alone and do not. */
function joinInsideWords(sections: string[], tokens: AddedTokens): string[] {
  const joined: string[] = [];
  let endsWithText = false;
  for (const [i, section] of sections.entries()) {
    const isToken = tokens.all.has(section) && !(tokens.singleWords.has(section) &&
      (ENDS_WITH_WORD.test(sections[i - 1] ?? "") || STARTS_WITH_WORD.test(sections[i + 1] ?? "")));
    if (!isToken && endsWithText) joined[joined.length - 1] += section;
    else joined.push(section);
    endsWithText = !isToken;
  }
  return joined;
}

function repairDecoder(decoder: Decoder | null): void {
  if (decoder instanceof SequenceDecoder) decoder.decoders.forEach(repairDecoder);
  if (decoder instanceof ByteFallbackDecoder) repairByteFallback(decoder);
  if (decoder instanceof ByteLevelDecoder) repairByteLevel(decoder);
}

function repairByteFallback(decoder: ByteFallbackDecoder): void {
  const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  const decode = (bytes: Uint8Array): string => {
    try {
      return strict.decode(bytes);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      return "\ufffd".repeat(bytes.length);
    }
  };
  Object.assign(decoder, { text_decoder: { decode } });
}

function repairByteLevel(decoder: ByteLevelDecoder): void {
  const encoder = new TextEncoder();
  const bytesOf = (token: string): number[] => {
    const bytes = Array.from(token, (character) => decoder.byte_decoder[character]);
    return bytes.includes(undefined as unknown as number) ? [...encoder.encode(token)] : bytes.map(Number);
  };
  const convert = (tokens: string[]) => decoder.text_decoder.decode(Uint8Array.from(tokens.flatMap(bytesOf)));
  Object.assign(decoder, { convert_tokens_to_string: convert });
}
