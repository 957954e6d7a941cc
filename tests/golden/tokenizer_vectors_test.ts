/** Ids and texts as Hugging Face's own libraries give them, for strings that are hard to cut. See tokenizer_vectors.py. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { createStreamDecoder } from "../../train/data/stream_decoder.ts";
import { createTokenizer, type Tokenizer } from "../../train/data/tokenizer.ts";
import { loadTokenizer } from "../../train/data/tokenizer_folder.ts";
import { SHARED_DATA, testWithSharedData } from "../shared_data.ts";

interface Vectors {
  ids: number[][];
  /** By the string's index, where it is not the string itself. */
  decoded: Record<number, string>;
  skipped: Record<number, string>;
  /** Ids that no text gives, with both texts. */
  broken: [number[], string, string][];
}
// deno-lint-ignore no-explicit-any -- a tokenizer.json, as Hugging Face writes it
type Trained = Vectors & { tokenizer: Record<string, any> };

const GOLDEN: {
  strings: string[];
  trained: Record<string, Trained>;
  tokenizers: Record<string, Vectors>;
} = JSON.parse(Deno.readTextFileSync(new URL("./tokenizer_vectors.json", import.meta.url)));

/** The Rust library sends added tokens through the byte-level decoder, which takes É for a byte; here they come back. */
const ADDED_TOKEN = "<|É|>";

function check(tokenizer: Tokenizer, vectors: Vectors): void {
  const decode = (ids: number[], skipSpecialTokens: boolean) =>
    tokenizer.decode(ids, { skipSpecialTokens, cleanUpTokenizationSpaces: false });
  for (const [i, text] of GOLDEN.strings.entries()) {
    const ids = vectors.ids[i];
    assert.deepEqual(tokenizer.encode(text), ids, JSON.stringify(text));
    for (const [key, skips] of [["decoded", false], ["skipped", true]] as const) {
      const expected = (vectors[key][i] ?? text).replaceAll("<|\ufffd|>", ADDED_TOKEN);
      assert.equal(decode(ids, skips), expected, `${key} ${JSON.stringify(text)}`);
    }
    checkStream(tokenizer, ids);
  }
  for (const [ids, text, withoutSpecial] of vectors.broken) {
    assert.equal(decode(ids, false), text, ids.join());
    assert.equal(decode(ids, true), withoutSpecial, ids.join());
  }
}

/** Piece by piece gives the same text as at once, and never half a character. */
function checkStream(tokenizer: Tokenizer, ids: number[]): void {
  const whole = tokenizer.decode(ids, { cleanUpTokenizationSpaces: false });
  const stream = createStreamDecoder(tokenizer);
  const pieces = ids.map((id) => stream.push(id));
  if (!whole.includes("\ufffd")) {
    assert(pieces.every((piece) => !piece.includes("\ufffd")), JSON.stringify(pieces));
    assert.equal(pieces.join(""), whole);
  }
  assert.equal(pieces.join("") + stream.end(), whole);
}

Deno.test("a byte-level tokenizer gives the reference library's ids and texts", () => {
  check(trained("byte_level"), GOLDEN.trained.byte_level);
});

Deno.test("a tokenizer with byte fallback gives the reference library's ids and texts", () => {
  check(trained("byte_fallback"), GOLDEN.trained.byte_fallback);
});

Deno.test("a tokenizer that marks spaces before it cuts gives the reference library's ids and texts", () => {
  check(trained("metaspace"), GOLDEN.trained.metaspace);
});

function trained(name: string): Tokenizer {
  const { base, ...changes } = GOLDEN.trained[name].tokenizer;
  const tokenizer = base === undefined ? changes : { ...GOLDEN.trained[base].tokenizer, ...changes };
  const bytes = new TextEncoder().encode(JSON.stringify(tokenizer));
  return createTokenizer(new Map([["tokenizer.json", bytes]]), { source: name });
}

for (const [name, vectors] of Object.entries(GOLDEN.tokenizers)) {
  testWithSharedData(`${name} gives the reference library's ids and texts`, async () => {
    const path = join(SHARED_DATA, name);
    check(
      name.endsWith(".json")
        ? createTokenizer(new Map([["tokenizer.json", Deno.readFileSync(path)]]), { source: name })
        : await loadTokenizer(path),
      vectors,
    );
  });
}
