import assert from "node:assert/strict";
import { join } from "node:path";
import { characterTokenizerFiles } from "../../train/data/character_tokenizer.ts";
import { createTokenizer } from "../../train/data/tokenizer.ts";
import { loadTokenizer, saveTokenizer } from "../../train/data/tokenizer_folder.ts";
import { CheckpointError } from "../../train/errors.ts";
import { SHARED_DATA, testWithSharedData } from "../shared_data.ts";

const SOURCE = "folder";

// deno-lint-ignore no-explicit-any -- files of other programs, changed at will to be wrong
type Json = any;

const readJson = (path: string): Json => JSON.parse(Deno.readTextFileSync(path));
const encodeJson = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));

/** A byte-fallback tokenizer with BOS, in the style of Llama 2's. */
function llamaLike(): { tokenizer: Json; config: Json } {
  const bytes = Array.from({ length: 256 }, (_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, "0")}>`);
  const tokens = ["<unk>", "<s>", "</s>", ...bytes, "▁", "a", "b", "ab"];
  const special = (id: number) => ({ id, content: tokens[id], special: true, normalized: false });
  const bos = { SpecialToken: { id: "<s>", type_id: 0 } };
  const text = { Sequence: { id: "A", type_id: 0 } };
  const tokenizer = {
    added_tokens: [special(0), special(1), special(2)],
    normalizer: { type: "Replace", pattern: { String: " " }, content: "▁" },
    post_processor: {
      type: "TemplateProcessing",
      single: [bos, text],
      pair: [bos, text],
      special_tokens: { "<s>": { id: "<s>", ids: [1], tokens: ["<s>"] } },
    },
    decoder: {
      type: "Sequence",
      decoders: [{ type: "Replace", pattern: { String: "▁" }, content: " " }, { type: "ByteFallback" }, {
        type: "Fuse",
      }],
    },
    model: {
      type: "BPE",
      unk_token: "<unk>",
      byte_fallback: true,
      fuse_unk: true,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: ["a b"],
    },
  };
  return { tokenizer, config: { bos_token: "<s>", eos_token: { content: "</s>" }, add_bos_token: true } };
}

function make(change: (files: { tokenizer: Json; config: Json; map: Json }) => void = () => {}) {
  const files = { ...llamaLike(), map: {} };
  change(files);
  const contents = new Map([
    ["tokenizer.json", encodeJson(files.tokenizer)],
    ["tokenizer_config.json", encodeJson(files.config)],
    ["special_tokens_map.json", encodeJson(files.map)],
  ]);
  return createTokenizer(contents, { source: SOURCE });
}

Deno.test("special tokens come from tokenizer_config.json, as text or object, else from special_tokens_map.json", () => {
  const tokenizer = make();
  assert.deepEqual([tokenizer.bosTokenId, tokenizer.eosTokenId, tokenizer.padTokenId], [1, 2, undefined]);
  assert.equal(tokenizer.vocabSize, 263);
  const mapped = make(({ config, map }) => {
    delete config.eos_token;
    map.eos_token = "b";
    map.pad_token = { content: "a" };
    map.bos_token = "a";
  });
  assert.deepEqual([mapped.bosTokenId, mapped.eosTokenId, mapped.padTokenId], [1, 261, 260]);
});

Deno.test("the vocabulary's size is the largest id + 1, holes and added tokens included", () => {
  const tokenizer = make(({ tokenizer }) =>
    tokenizer.added_tokens.push({ id: 300, content: "<extra>", special: true })
  );
  assert.equal(tokenizer.vocabSize, 301);
  assert.deepEqual(tokenizer.encode("a<extra>b"), [1, 260, 300, 261]);
});

Deno.test("BOS is added once, also where the text already starts with it", () => {
  const tokenizer = make();
  assert.deepEqual(tokenizer.encode("ab"), [1, 262]);
  assert.deepEqual(tokenizer.encode("ab", { addSpecialTokens: false }), [262]);
  assert.deepEqual(tokenizer.encode("<s>ab"), [1, 262]);
  assert.deepEqual(tokenizer.encode("<s><s>ab"), [1, 1, 262]);
  assert.deepEqual(tokenizer.encode("<s>ab", { addSpecialTokens: false }), [1, 262]);
  assert.deepEqual(tokenizer.encode(""), [1]);
  assert.deepEqual(tokenizer.encode("", { addSpecialTokens: false }), []);
});

Deno.test("one token that both begins and ends a text is not taken for a doubled BOS", () => {
  const tokenizer = make(({ tokenizer, config }) => {
    tokenizer.post_processor.single.push({ SpecialToken: { id: "<s>", type_id: 0 } });
    config.eos_token = "<s>";
  });
  assert.deepEqual(tokenizer.encode(""), [1, 1]);
  assert.deepEqual(tokenizer.encode("a"), [1, 260, 1]);
});

Deno.test("two BOS in a text stay two where the tokenizer adds none", () => {
  const tokenizer = make(({ tokenizer, config }) => {
    delete tokenizer.post_processor;
    delete config.add_bos_token;
  });
  assert.deepEqual(tokenizer.encode("<s><s>ab"), [1, 1, 262]);
  const ending = make(({ tokenizer, config }) => {
    tokenizer.post_processor.single.reverse();
    delete config.add_bos_token;
  });
  assert.deepEqual(ending.encode("<s><s>ab"), [1, 1, 262, 1]);
});

Deno.test("decoding takes no ids, unknown ids and nothing but special tokens", () => {
  const tokenizer = make();
  assert.equal(tokenizer.decode([]), "");
  assert.equal(tokenizer.decode([5000, 260, 263]), "a");
  assert.equal(tokenizer.decode([1, 2]), "<s></s>");
  assert.equal(tokenizer.decode([1, 2], { skipSpecialTokens: true }), "");
  assert.equal(tokenizer.decode(new Uint32Array([1, 262]), { skipSpecialTokens: true }), "ab");
  for (const id of [-1, 1.5, NaN]) {
    assert.throws(() => tokenizer.decode([260, id]), {
      name: "RangeError",
      message: `Cannot decode: expected token ids, found ${id}`,
    });
  }
});

Deno.test("byte tokens are decoded as the Rust library does: U+FEFF kept, one U+FFFD for each byte that is no UTF-8", () => {
  const tokenizer = make();
  const ofBytes = (bytes: number[]) => tokenizer.decode(bytes.map((byte) => byte + 3));
  assert.equal(ofBytes([0xef, 0xbb, 0xbf, 0x78]), "\ufeffx");
  assert.equal(ofBytes([0xe2, 0x82]), "\ufffd\ufffd");
  assert.equal(ofBytes([0xe2, 0x82, 0xac]), "€");
  const text = "\ufeffnaïve € 👍";
  assert.equal(tokenizer.decode(tokenizer.encode(text), { skipSpecialTokens: true }), text);
});

Deno.test("spaces are cleaned up only where tokenizer_config.json says so", () => {
  const text = "a ,b";
  const plain = make();
  assert.equal(plain.decode(plain.encode(text, { addSpecialTokens: false })), text);
  const cleaning = make(({ config }) => config.clean_up_tokenization_spaces = true);
  assert.equal(cleaning.decode(cleaning.encode(text, { addSpecialTokens: false })), "a,b");
});

Deno.test("text without a token is an error where there is no unknown token", () => {
  const tokenizer = make((files) => {
    files.tokenizer = { model: { type: "Unigram", vocab: [["b", 0], ["c", -1]] } };
    files.config = {};
  });
  assert.deepEqual(tokenizer.encode("bc"), [0, 1]);
  assert.throws(() => tokenizer.encode("a"), {
    name: "RangeError",
    message: 'Cannot encode text: expected a token for every part of it, found none in "a"',
  });
});

const CONFIG = "tokenizer_config.json";
const REFUSED: [title: string, change: Parameters<typeof make>[0], message: string][] = [
  [
    "tokenizer.json without a model",
    ({ tokenizer }) => delete tokenizer.model,
    "tokenizer.json: model: expected an object with type and vocab, found nothing",
  ],
  [
    "a model of unknown type",
    ({ tokenizer }) => tokenizer.model.type = "Markov",
    'tokenizer.json: model.type: expected "BPE", "WordPiece" or "Unigram", found "Markov"',
  ],
  [
    "a vocabulary that is a list",
    ({ tokenizer }) => tokenizer.model.vocab = [],
    "tokenizer.json: model.vocab: expected an object of token ids, found []",
  ],
  [
    "a negative id",
    ({ tokenizer }) => tokenizer.model.vocab.a = -1,
    'tokenizer.json: model.vocab["a"]: expected a token id up to 2^24, found -1',
  ],
  [
    "an absurd id",
    ({ tokenizer }) => tokenizer.model.vocab.a = 2 ** 32,
    'tokenizer.json: model.vocab["a"]: expected a token id up to 2^24, found 4294967296',
  ],
  [
    "one id twice",
    ({ tokenizer }) => tokenizer.model.vocab.b = 260,
    'tokenizer.json: model.vocab["b"]: expected an id other than that of "a", found 260',
  ],
  [
    "no merges",
    ({ tokenizer }) => delete tokenizer.model.merges,
    "tokenizer.json: model.merges: expected a list of pairs, found nothing",
  ],
  [
    "a merge of one",
    ({ tokenizer }) => tokenizer.model.merges = ["ab"],
    'tokenizer.json: model.merges[0]: expected two tokens whose union is a token, found "ab"',
  ],
  [
    "a merge to no token",
    ({ tokenizer }) => tokenizer.model.merges = ["a b", "b a"],
    'tokenizer.json: model.merges[1]: expected two tokens whose union is a token, found "b a"',
  ],
  [
    "a merge of numbers",
    ({ tokenizer }) => tokenizer.model.merges = [[1, 2]],
    "tokenizer.json: model.merges[0]: expected two tokens whose union is a token, found [1, 2]",
  ],
  [
    "dropout",
    ({ tokenizer }) => tokenizer.model.dropout = 0.1,
    "tokenizer.json: model.dropout: expected none: merges left out at random are not supported, found 0.1",
  ],
  [
    "a subword prefix",
    ({ tokenizer }) => tokenizer.model.continuing_subword_prefix = "##",
    'tokenizer.json: model.continuing_subword_prefix: expected none (not supported), found "##"',
  ],
  [
    "an unknown token that is none",
    ({ tokenizer }) => tokenizer.model.unk_token = "?",
    'tokenizer.json: model.unk_token: expected a token of the vocabulary, found "?"',
  ],
  [
    "an added token without content",
    ({ tokenizer }) => tokenizer.added_tokens[1] = { id: 1 },
    "tokenizer.json: added_tokens.1.content: expected text, found nothing",
  ],
  [
    "an added token with another id",
    ({ tokenizer }) => tokenizer.added_tokens[1].id = 9,
    'tokenizer.json: added_tokens[1].id: expected 1, the other id of "<s>", found 9',
  ],
  [
    "an added token on a taken id",
    ({ tokenizer }) => tokenizer.added_tokens.push({ id: 260, content: "x" }),
    'tokenizer.json: added_tokens[3].id: expected an id other than that of "a", found 260',
  ],
  [
    "a normalizer of unknown type",
    ({ tokenizer }) => tokenizer.normalizer.type = "Shout",
    "tokenizer.json: Unknown Normalizer type: Shout",
  ],
  [
    "a template's token that is none",
    ({ tokenizer }) => tokenizer.post_processor.single[0].SpecialToken.id = "<bos>",
    'tokenizer.json: post_processor.single[0].SpecialToken.id: expected a token of the vocabulary, found "<bos>"',
  ],
  [
    "a template inside a sequence whose token is none",
    ({ tokenizer }) =>
      tokenizer.post_processor = {
        type: "Sequence",
        processors: [{ type: "TemplateProcessing", single: [{ SpecialToken: { id: "<x>" } }] }],
      },
    'tokenizer.json: post_processor.single[0].SpecialToken.id: expected a token of the vocabulary, found "<x>"',
  ],
  [
    "a template that is none",
    ({ tokenizer }) => delete tokenizer.post_processor.single,
    "tokenizer.json: post_processor.single: expected a list of tokens and sequences, found nothing",
  ],
  [
    "a decoder that is text",
    ({ tokenizer }) => tokenizer.decoder = "Fuse",
    'tokenizer.json: decoder: expected an object with a type, or null, found "Fuse"',
  ],
  [
    "scores that are no scores",
    ({ tokenizer }) => tokenizer.model = { type: "Unigram", vocab: [["a", 0], ["b"]], unk_id: 0 },
    'tokenizer.json: model.vocab[1]: expected [token, score], found ["b"]',
  ],
  [
    "a BOS that is no token",
    ({ config }) => config.bos_token = "<bos>",
    `${CONFIG}: bos_token: expected a token of tokenizer.json, found "<bos>"`,
  ],
  [
    "an EOS that is a number",
    ({ config }) => config.eos_token = 2,
    `${CONFIG}: eos_token: expected a token, or an object with its content, found 2`,
  ],
  [
    "a BOS that is denied and added",
    ({ config }) => config.add_bos_token = false,
    `${CONFIG}: add_bos_token: expected true, as tokenizer.json does, found false`,
  ],
  [
    "a BOS that is promised and not added",
    ({ tokenizer }) => delete tokenizer.post_processor,
    `${CONFIG}: add_bos_token: expected false, as tokenizer.json does, found true`,
  ],
  [
    "an EOS that is promised and not added",
    ({ config }) => config.add_eos_token = true,
    `${CONFIG}: add_eos_token: expected false, as tokenizer.json does, found true`,
  ],
  [
    "an added token that tokenizer.json does not know",
    ({ config }) => config.added_tokens_decoder = { 7: { content: "<x>" } },
    `${CONFIG}: added_tokens_decoder.7: expected the token with that id, found "<x>", whose id in tokenizer.json is nothing`,
  ],
  [
    "a special token map that is a list",
    (files) => files.map = [],
    "special_tokens_map.json: the whole: expected an object, found []",
  ],
];

for (const [title, change, message] of REFUSED) {
  Deno.test(`a tokenizer is refused for ${title}`, () => {
    assert.throws(() => make(change), (error) => {
      assert(error instanceof CheckpointError, String(error));
      assert.equal(error.message, `Cannot read ${SOURCE}/${message}`);
      return true;
    });
  });
}

Deno.test("half a surrogate pair is refused, wherever it stands", () => {
  const tokenizer = make();
  for (const text of ["\ud83d", "a\udc4db", "\udc4d\ud83d"]) {
    assert.throws(() => tokenizer.encode(text), {
      name: "RangeError",
      message: /Cannot encode text: expected Unicode text, found half a surrogate pair in/,
    });
  }
  assert.deepEqual(tokenizer.decode(tokenizer.encode("\ud83d\udc4d"), { skipSpecialTokens: true }), "👍");
});

Deno.test("missing and broken files are refused by name", async () => {
  const folder = Deno.makeTempDirSync();
  try {
    const file = join(folder, "tokenizer.json");
    const reject = (message: string | RegExp) =>
      assert.rejects(loadTokenizer(folder), { name: "CheckpointError", message });
    await reject(`Cannot read ${file}: expected a file, or vocab.json and merges.txt, found nothing`);
    Deno.writeTextFileSync(join(folder, "vocab.json"), "{}");
    await reject(`Cannot read ${file}: expected a file, or vocab.json and merges.txt, found vocab.json`);
    Deno.writeTextFileSync(file, '{"model": ');
    await reject(/tokenizer\.json: expected JSON, found Unexpected end/);
    Deno.writeFileSync(file, new Uint8Array([0x22, 0xff, 0x22]));
    await reject(/tokenizer\.json: expected UTF-8 text, found other bytes/);
    Deno.writeTextFileSync(file, "null");
    await reject(`Cannot read ${file}: the whole: expected an object, found null`);
    const { tokenizer } = llamaLike();
    Deno.writeTextFileSync(file, JSON.stringify(tokenizer));
    Deno.writeTextFileSync(join(folder, "tokenizer_config.json"), "{,}");
    await reject(/tokenizer_config\.json: expected JSON, found/);
    Deno.removeSync(join(folder, "tokenizer_config.json"));
    assert.equal((await loadTokenizer(folder)).eosTokenId, undefined);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});

Deno.test("a saved tokenizer has the files it was made from", async () => {
  const folder = Deno.makeTempDirSync();
  try {
    const tokenizer = createTokenizer(characterTokenizerFiles("ab", { eos: "." }), { source: "generated" });
    await saveTokenizer(tokenizer, folder);
    assert.deepEqual((await loadTokenizer(folder)).files, tokenizer.files);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});

Deno.test("the arithmetic alphabet has 16 ids, a digit's id is its value, $ ends", () => {
  const tokenizer = createTokenizer(characterTokenizerFiles("0123456789+-:,$", { eos: "$" }), {
    source: "generated",
  });
  assert.equal(tokenizer.vocabSize, 16);
  assert.deepEqual([tokenizer.bosTokenId, tokenizer.eosTokenId, tokenizer.padTokenId], [undefined, 14, 15]);
  const problem = "37+48-15:58,07$";
  const ids = [3, 7, 10, 4, 8, 11, 1, 5, 12, 5, 8, 13, 0, 7, 14];
  assert.deepEqual(tokenizer.encode(problem), ids);
  assert.equal(tokenizer.decode(ids), problem);
  assert.equal(tokenizer.decode(ids, { skipSpecialTokens: true }), "37+48-15:58,07");
  assert.deepEqual(tokenizer.encode("1 x👍$$"), [1, 15, 15, 15, 14, 14]);
});

Deno.test("a character tokenizer takes any characters and a longer end token, but none twice", () => {
  const tokenizer = createTokenizer(characterTokenizerFiles('é👍 "\\\n', { eos: "<end>" }), {
    source: "generated",
  });
  assert.deepEqual(tokenizer.encode('👍é\n\\" <end>'), [1, 0, 5, 4, 3, 2, 6]);
  assert.equal(tokenizer.decode([1, 0, 5, 4, 3, 2, 6]), '👍é\n\\" <end>');
  assert.equal(tokenizer.vocabSize, 8);
  assert.throws(() => characterTokenizerFiles("aba", { eos: "b" }), {
    name: "RangeError",
    message: /found two "a"/,
  });
});

testWithSharedData("stories260K gives the input ids and texts of golden.json", async () => {
  const folder = join(SHARED_DATA, "models/stories260K");
  const tokenizer = await loadTokenizer(folder);
  assert.deepEqual([tokenizer.vocabSize, tokenizer.bosTokenId, tokenizer.eosTokenId], [512, 1, 2]);
  const { prompts } = readJson(join(folder, "golden.json"));
  assert(prompts.length >= 3);
  for (const { prompt, input_ids, continuation_ids, continuation_text, full_text } of prompts) {
    assert.deepEqual(tokenizer.encode(prompt), input_ids);
    assert.equal(tokenizer.decode(continuation_ids), continuation_text);
    assert.equal(
      tokenizer.decode([...input_ids, ...continuation_ids], { skipSpecialTokens: true }),
      full_text,
    );
  }
});

testWithSharedData("gpt2 gives the published ids and texts", async () => {
  const tokenizer = await loadTokenizer(join(SHARED_DATA, "tokenizers/gpt2"));
  const vectors = readJson(join(SHARED_DATA, "tokenizer-vectors/tokenizer_tests.json")).distilgpt2;
  assert.equal(vectors.length, 18);
  for (const { input, encoded, decoded_with_special, decoded_without_special } of vectors) {
    assert.deepEqual(tokenizer.encode(input), encoded.input_ids);
    assert.equal(tokenizer.decode(encoded.input_ids), decoded_with_special);
    assert.equal(tokenizer.decode(encoded.input_ids, { skipSpecialTokens: true }), decoded_without_special);
  }
  const long = readJson(join(SHARED_DATA, "tokenizer-vectors/gpt2_encoded_tokens.json"));
  assert.deepEqual(tokenizer.encode(long.text), long.token_ids);
  assert.equal(tokenizer.decode(long.token_ids), long.decoded_text);
  assert.equal(tokenizer.vocabSize, 50257);
});
