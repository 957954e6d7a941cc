/** Tokenizers of vocab.json and merges.txt. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { createTokenizer } from "../../train/data/tokenizer.ts";
import { loadTokenizer, saveTokenizer } from "../../train/data/tokenizer_folder.ts";

const encodeText = (text: string) => new TextEncoder().encode(text);
const VOCAB = { "<|endoftext|>": 6, a: 0, b: 1, "Ġ": 2, ab: 3, "Ġa": 4, "!": 5 };
const MERGES = "#version: 0.2\na b\nĠ a\n";

interface Parts {
  vocab?: unknown;
  merges?: string | Uint8Array;
  config?: Record<string, unknown>;
  added?: unknown;
}

function files(parts: Parts = {}): Map<string, Uint8Array> {
  const { vocab = VOCAB, merges = MERGES, config = { tokenizer_class: "GPT2Tokenizer" }, added } = parts;
  const contents = new Map([
    ["vocab.json", encodeText(typeof vocab === "string" ? vocab : JSON.stringify(vocab))],
    ["merges.txt", typeof merges === "string" ? encodeText(merges) : merges],
    ["tokenizer_config.json", encodeText(JSON.stringify(config))],
  ]);
  if (added !== undefined) contents.set("added_tokens.json", encodeText(JSON.stringify(added)));
  return contents;
}
const make = (parts: Parts = {}) => createTokenizer(files(parts), { source: "folder" });

Deno.test("merges are applied, CRLF and a byte order mark or not, and the class's end token is found", () => {
  for (const merges of [MERGES, MERGES.replaceAll("\n", "\r\n"), "\ufeff" + MERGES, "a b\nĠ a"]) {
    const tokenizer = make({ merges });
    assert.deepEqual(tokenizer.encode("ab a!<|endoftext|>b"), [3, 4, 5, 6, 1]);
    assert.deepEqual([tokenizer.bosTokenId, tokenizer.eosTokenId, tokenizer.padTokenId], [6, 6, undefined]);
    assert.equal(tokenizer.vocabSize, 7);
    assert.equal(tokenizer.decode([3, 4, 5, 6], { skipSpecialTokens: true }), "ab a!");
  }
});

Deno.test("a special token that a file denies stays denied", () => {
  const tokenizer = make({ config: { tokenizer_class: "GPT2TokenizerFast", bos_token: null } });
  assert.deepEqual([tokenizer.bosTokenId, tokenizer.eosTokenId], [undefined, 6]);
});

Deno.test("added tokens come from added_tokens.json or tokenizer_config.json, with their flags", () => {
  const added = make({ added: { "<x>": 9 } });
  assert.deepEqual(added.encode("a<x>b"), [0, 9, 1]);
  assert.equal(added.vocabSize, 10);
  assert.equal(added.decode([0, 9], { skipSpecialTokens: true }), "a<x>");
  const decoder = { 9: { content: "<x>", special: true }, 6: { content: "<|endoftext|>", special: true } };
  const configured = make({
    config: { tokenizer_class: "GPT2Tokenizer", added_tokens_decoder: decoder },
    added: { "<x>": 9 },
  });
  assert.deepEqual(configured.encode("a<x>b"), [0, 9, 1]);
  assert.equal(configured.decode([0, 9], { skipSpecialTokens: true }), "a");
});

Deno.test("BOS and EOS are added where tokenizer_config.json says so, a leading space too", () => {
  const config = { tokenizer_class: "GPT2Tokenizer", add_bos_token: true, bos_token: "!" };
  assert.deepEqual(make({ config }).encode("ab"), [5, 3]);
  assert.deepEqual(make({ config: { ...config, add_eos_token: true } }).encode("ab"), [5, 3, 6]);
  assert.deepEqual(
    make({ config: { ...config, add_bos_token: false, add_prefix_space: true } }).encode("a"),
    [4],
  );
});

const REFUSED: [title: string, parts: Parts, message: string | RegExp][] = [
  [
    "an unknown class",
    { config: { tokenizer_class: "CLIPTokenizer" } },
    'vocab.json without tokenizer.json: tokenizer_class of tokenizer_config.json: expected "GPT2Tokenizer" or ' +
    '"Qwen2Tokenizer", found "CLIPTokenizer"',
  ],
  [
    "no class",
    { config: {} },
    'vocab.json without tokenizer.json: tokenizer_class of tokenizer_config.json: expected "GPT2Tokenizer" or ' +
    '"Qwen2Tokenizer", found nothing',
  ],
  [
    "a merge of one token",
    { merges: "#version: 0.2\na b\nab\n" },
    'merges.txt:3: expected two tokens of vocab.json whose union is one too, found "ab"',
  ],
  [
    "a merge of three",
    { merges: "a b Ġ\n" },
    'merges.txt:1: expected two tokens of vocab.json whose union is one too, found "a b Ġ"',
  ],
  [
    "a merge of another vocabulary",
    { merges: "a b\nb a\n" },
    'merges.txt:2: expected two tokens of vocab.json whose union is one too, found "b a"',
  ],
  [
    "a blank line within",
    { merges: "a b\n\nĠ a\n" },
    'merges.txt:2: expected two tokens of vocab.json whose union is one too, found ""',
  ],
  [
    "merges that are no text",
    { merges: new Uint8Array([0xff]) },
    "merges.txt: expected UTF-8 text, found other bytes",
  ],
  [
    "a list for a vocabulary",
    { vocab: ["a"] },
    'vocab.json: the whole: expected an object of token ids, found ["a"]',
  ],
  [
    "one id twice",
    { vocab: { ...VOCAB, x: 3 } },
    'vocab.json: ["x"]: expected an id other than that of "ab", found 3',
  ],
  [
    "one token twice",
    { vocab: '{"a": 0, "b": 1, "a": 2}' },
    'vocab.json: ["a"]: expected each token once, found 2',
  ],
  [
    "an id that is none",
    { vocab: { ...VOCAB, x: "3" } },
    'vocab.json: ["x"]: expected a token id up to 2^24, found "3"',
  ],
  [
    "an added token on a taken id",
    { added: { "<x>": 3 } },
    'added_tokens.json: added_tokens[0].id: expected an id other than that of "ab", found 3',
  ],
  [
    "added tokens in a list",
    { added: [] },
    "added_tokens.json: the whole: expected an object of token ids, found []",
  ],
];

for (const [title, parts, message] of REFUSED) {
  Deno.test(`vocab.json and merges.txt are refused for ${title}`, () => {
    assert.throws(() => make(parts), { name: "CheckpointError", message: `Cannot read folder/${message}` });
  });
}

Deno.test("config.json's model_type tells the class; the saved folder has the same files", async () => {
  const folder = Deno.makeTempDirSync();
  const other = Deno.makeTempDirSync();
  try {
    for (const [name, bytes] of files({ config: {} })) Deno.writeFileSync(join(folder, name), bytes);
    Deno.writeTextFileSync(join(folder, "config.json"), '{"model_type": "gpt2"}');
    const tokenizer = await loadTokenizer(folder);
    assert.deepEqual(tokenizer.encode("ab a"), [3, 4]);
    assert.equal(tokenizer.eosTokenId, 6);
    await saveTokenizer(tokenizer, other);
    assert.deepEqual([...Deno.readDirSync(other)].map(({ name }) => name).toSorted(), [
      "merges.txt",
      "tokenizer_config.json",
      "vocab.json",
    ]);
    Deno.writeTextFileSync(join(folder, "config.json"), "{");
    await assert.rejects(loadTokenizer(folder), /config\.json: expected JSON, found/);
  } finally {
    Deno.removeSync(folder, { recursive: true });
    Deno.removeSync(other, { recursive: true });
  }
});
