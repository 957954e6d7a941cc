import assert from "node:assert/strict";
import { join } from "node:path";
import { loadTokenizer } from "../../train/data/tokenizer_folder.ts";
import { cutText, encodePieces, readTexts, surveyTexts } from "../../train/evaluation/text_files.ts";
import { SHARED_DATA, testWithSharedData } from "../shared_data.ts";
import { temporaryFolder, tinyTokenizer } from "../tiny_model.ts";

const OPTIONS = { tokenizer: tinyTokenizer(), vocabSize: 16, maxLength: 6, stride: 3 };

async function write(name: string, text: string | Uint8Array): Promise<string> {
  const path = join(temporaryFolder(), name);
  await Deno.writeFile(path, typeof text === "string" ? new TextEncoder().encode(text) : text);
  return path;
}

/** What is predicted of every text, and of how many bytes. */
async function predicted(path: string, options: { limit?: number } = {}) {
  const found = [];
  for await (const text of readTexts(path, { ...OPTIONS, ...options })) {
    const windows = await Array.fromAsync(text.windows);
    found.push({
      ids: windows.flatMap(({ completionIds }) => completionIds),
      given: windows[0]?.promptIds,
      bytes: text.bytes(),
    });
  }
  return found;
}

Deno.test("a .txt is one text; its first token is given where there is no BOS, and its bytes do not count", async () => {
  const path = await write("a.txt", "12+3:15,$");
  assert.deepEqual(await predicted(path), [{ ids: [2, 10, 3, 12, 1, 5, 13, 14], given: [1], bytes: 8 }]);
  assert.equal(await surveyTexts(path), 9);
});

Deno.test("a limit takes lines of a .txt, and records of others", async () => {
  const path = await write("a.txt", "12\n34\n56\n");
  const [{ ids, bytes }] = await predicted(path, { limit: 2 });
  assert.deepEqual([ids.length, bytes], [5, 5]); // "12\n34\n" without its first
  const records = await write("a.jsonl", '{"text": "12"}\n{"text": "345"}\n{"text": "6"}\n');
  assert.deepEqual((await predicted(records, { limit: 2 })).map(({ ids }) => ids), [[2], [4, 5]]);
  assert.equal(await surveyTexts(records, 2), 2);
});

Deno.test("of a prompt with a completion only the completion is predicted, to its end token", async () => {
  const prompts = await write("a.jsonl", '{"prompt": "1+2:", "completion": "3"}\n');
  assert.deepEqual(await predicted(prompts), [{ ids: [3, 14], given: [1, 10, 2, 12], bytes: 1 }]);
  const long = await write("a.jsonl", '{"prompt": "123456789", "completion": "0123456789"}\n');
  const [{ ids, given, bytes }] = await predicted(long);
  assert.deepEqual(ids, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 14], "nothing is cut off");
  assert.deepEqual([given, bytes], [[7, 8, 9], 10]); // of the prompt, as much as another window sees
});

const refuses = (what: string, name: string, text: string | Uint8Array, expected: RegExp) =>
  Deno.test(`texts refuse ${what}`, async () => {
    const path = await write(name, text);
    await assert.rejects(surveyTexts(path), (error: Error) => {
      assert.equal(error.name, "DataError");
      assert.match(error.message, expected);
      return true;
    });
  });

refuses("an empty .txt", "a.txt", "", /a\.txt: expected text, found an empty file/);
refuses("bytes that are no UTF-8", "a.txt", Uint8Array.of(65, 0xff, 66), /a\.txt: expected UTF-8 text/);
refuses("UTF-8 that ends too early", "a.txt", Uint8Array.of(65, 0xe2, 0x82), /a\.txt: expected UTF-8 text/);
refuses(
  "a key of another type",
  "a.jsonl",
  '{"text": "a"}\n{"text": 3}\n',
  /a\.jsonl:2: key "text": .* found number/,
);
refuses(
  "a prompt without completion",
  "a.jsonl",
  '{"prompt": "a"}',
  /a\.jsonl:1: expected "text".* found "prompt"/,
);
refuses("a completion without prompt", "a.jsonl", '{"completion": "a"}', /key "prompt": .* found nothing/);

Deno.test("a text is cut after single line ends between words, and nothing is lost", async () => {
  const text = "ab\n\ncd\ne f\n g\nhi\n\n\nj\nkl\n";
  for (const step of [1, 4, 100]) {
    const chunks = Array.from(
      { length: Math.ceil(text.length / step) },
      (_, i) => text.slice(i * step, (i + 1) * step),
    );
    const pieces = await Array.fromAsync(cutText(chunks, 5));
    assert.equal(pieces.join(""), text);
    for (const [index, piece] of pieces.slice(1).entries()) {
      assert.match(pieces[index] + "|" + piece, /\S\n\|\S/);
    }
    if (step < 100) assert.ok(pieces.length > 1);
  }
});

for (const name of ["models/stories260K", "tokenizers/gpt2", "tokenizers/minimind-6400"]) {
  testWithSharedData(`pieces have the ids of the whole text: ${name}`, async () => {
    const tokenizer = await loadTokenizer(join(SHARED_DATA, name));
    const text = (await Deno.readTextFile(join(SHARED_DATA, "corpus/tinyshakespeare.txt"))).slice(0, 20_000) +
      "a\n\n\nb  \n c\nd\né\n日本\n\t x\n1\n2\n";
    const pieces = await Array.fromAsync(cutText([text.slice(0, 9_000), text.slice(9_000)], 2_000));
    assert.ok(pieces.length > 1, "the text must be cut");
    const ids = (await Array.fromAsync(encodePieces(pieces, tokenizer))).flat();
    assert.deepEqual(ids, tokenizer.encode(text));
  });
}
