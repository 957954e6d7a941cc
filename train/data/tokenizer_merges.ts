/**
 * Tokenizers that come as vocab.json and merges.txt: GPT-2's and Qwen's first form. What the pair leaves out (how text is
 * cut before it is merged) is known by the tokenizer's class, as transformers knows it.
 *
 * @module
 */
import { CheckpointError, showFound } from "../errors.ts";

/** What a class of transformers adds to its vocabulary and merges. */
interface TokenizerClass {
  normalizer: { type: "NFC" } | null;
  /** Cuts text where it is not cut by GPT-2's pattern. */
  pattern?: string;
  /** Special tokens where the files name none. */
  defaults: Readonly<Partial<Record<"bos_token" | "eos_token" | "pad_token", string>>>;
}

/** Source of the pattern: Qwen2Tokenizer of transformers 5.24. */
const QWEN2_PATTERN =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

const END_OF_TEXT = "<|endoftext|>";
const CLASSES: Readonly<Record<string, TokenizerClass>> = {
  GPT2Tokenizer: { normalizer: null, defaults: { bos_token: END_OF_TEXT, eos_token: END_OF_TEXT } },
  Qwen2Tokenizer: {
    normalizer: { type: "NFC" },
    pattern: QWEN2_PATTERN,
    defaults: { eos_token: END_OF_TEXT, pad_token: END_OF_TEXT },
  },
};
const CLASS_OF_MODEL: Readonly<Record<string, string>> = {
  gpt2: "GPT2Tokenizer",
  qwen2: "Qwen2Tokenizer",
  qwen3: "Qwen2Tokenizer",
};

/** What the files around a vocabulary say. */
export interface MergesContext {
  /** Vocabulary, checked: token -> id. */
  vocab: ReadonlyMap<string, number>;
  /** merges.txt as text. */
  merges: string;
  /** The class, from {@linkcode tokenizerClassOf}. */
  tokenizerClass: string | undefined;
  /** tokenizer_config.json's keys of the same names, special tokens filled in. */
  config: {
    add_prefix_space?: unknown;
    add_bos_token?: unknown;
    add_eos_token?: unknown;
    bos_token?: string | null;
    eos_token?: string | null;
  };
  /** Added tokens with their ids and flags. */
  added: readonly AddedTokenJson[];
  /** The folder, for messages. */
  source: string;
}

/** An added token as tokenizer.json writes it. */
export interface AddedTokenJson {
  id: number;
  content: string;
  special: boolean;
  single_word: boolean;
  lstrip: boolean;
  rstrip: boolean;
  normalized: boolean;
}

/**
 * The class of a tokenizer: its own name for it, else the one that goes with the model.
 *
 * @param tokenizerClass `tokenizer_class` of tokenizer_config.json
 * @param modelType `model_type` of config.json
 * @returns the name without "Fast", or undefined
 */
export function tokenizerClassOf(
  tokenizerClass: string | undefined,
  modelType: string | undefined,
): string | undefined {
  if (tokenizerClass !== undefined) return tokenizerClass.replace(/Fast$/, "");
  return modelType === undefined || !Object.hasOwn(CLASS_OF_MODEL, modelType)
    ? undefined
    : CLASS_OF_MODEL[modelType];
}

/**
 * Special tokens that a class has where no file says otherwise.
 *
 * @param tokenizerClass from {@linkcode tokenizerClassOf}
 */
export function defaultSpecialTokens(tokenizerClass: string | undefined): TokenizerClass["defaults"] {
  return classOf(tokenizerClass)?.defaults ?? {};
}

function classOf(name: string | undefined): TokenizerClass | undefined {
  return name !== undefined && Object.hasOwn(CLASSES, name) ? CLASSES[name] : undefined;
}

/**
 * tokenizer.json for a vocabulary and its merges.
 *
 * @param context what the files say
 * @returns what a tokenizer.json would hold, vocabulary and all
 * @throws {CheckpointError} a class that is not known; a malformed merge, naming its line
 */
export function composeTokenizer(context: MergesContext): Record<string, unknown> {
  const { tokenizerClass, config, source } = context;
  const known = classOf(tokenizerClass);
  if (known === undefined) {
    const expected = Object.keys(CLASSES).map((name) => JSON.stringify(name)).join(" or ");
    throw new CheckpointError(
      `Cannot read ${source}/vocab.json without tokenizer.json: tokenizer_class of tokenizer_config.json: ` +
        `expected ${expected}, found ${showFound(tokenizerClass)}`,
    );
  }
  const byteLevel = (regex: boolean) => ({
    type: "ByteLevel",
    add_prefix_space: config.add_prefix_space === true,
    trim_offsets: true,
    use_regex: regex,
  });
  const split = {
    type: "Split",
    pattern: { Regex: known.pattern },
    behavior: "Isolated",
    invert: false,
  };
  return {
    added_tokens: context.added,
    normalizer: known.normalizer,
    pre_tokenizer: known.pattern === undefined
      ? byteLevel(true)
      : { type: "Sequence", pretokenizers: [split, byteLevel(false)] },
    post_processor: postProcessor(context),
    decoder: byteLevel(true),
    model: {
      type: "BPE",
      vocab: Object.fromEntries(context.vocab),
      merges: readMerges(context),
      unk_token: null,
      byte_fallback: false,
      fuse_unk: false,
    },
  };
}

function postProcessor({ config }: MergesContext): unknown {
  const token = (name: string | null | undefined) => ({ SpecialToken: { id: name, type_id: 0 } });
  const bos = config.add_bos_token === true && config.bos_token ? [token(config.bos_token)] : [];
  const eos = config.add_eos_token === true && config.eos_token ? [token(config.eos_token)] : [];
  if (bos.length + eos.length === 0) return null;
  const text = { Sequence: { id: "A", type_id: 0 } };
  return { type: "TemplateProcessing", single: [...bos, text, ...eos], pair: [], special_tokens: {} };
}

function readMerges({ merges, vocab, source }: MergesContext): [string, string][] {
  const lines = merges.split(/\r?\n/);
  if (lines.at(-1) === "") lines.pop();
  const pairs: [string, string][] = [];
  for (const [i, line] of lines.entries()) {
    if (line.startsWith("#version")) continue;
    const pieces = line.split(" ");
    const [left, right] = pieces;
    const good = pieces.length === 2 && vocab.has(left) && vocab.has(right) && vocab.has(left + right);
    if (!good) {
      throw new CheckpointError(
        `Cannot read ${source}/merges.txt:${
          i + 1
        }: expected two tokens of vocab.json whose union is one too, ` +
          `found ${showFound(line)}`,
      );
    }
    pairs.push([left, right]);
  }
  return pairs;
}
