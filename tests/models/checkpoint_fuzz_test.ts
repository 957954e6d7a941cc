import assert from "node:assert/strict";
import { CheckpointError } from "../../train/errors.ts";
import { parseCheckpointIndex } from "../../train/models/checkpoint_index.ts";
import { parseHeader, readHeaderLength } from "../../train/models/safetensors_header.ts";
import { HEADER, INDEX } from "../fuzz/checkpoint_texts.ts";
import { mutateText } from "../fuzz/mutate.ts";
import { seededRandom } from "../reference/random.ts";

/** Pieces that parsers stumble over. */
const TOKENS = [
  ...['"', "{", "}", "[", "]", ",", ":", "\\", "\0", "-", "1e999", "9007199254740993", "null", "true", "0.5"],
  ...[
    '"__proto__"',
    '"__metadata__"',
    '"dtype"',
    '"shape"',
    '"weight_map"',
    "[".repeat(20_000),
    '{"a":'.repeat(20_000),
  ],
  ...["\ud800", "\ufeff", '"F32"', '"I8"', "../x.safetensors", "-1", " "],
];

const mutate = (seed: string, random: () => number) => mutateText(seed, random, { tokens: TOKENS, most: 4 });

/** @returns whether it was accepted */
function isAccepted(text: string, parse: () => unknown): boolean {
  try {
    parse();
    return true;
  } catch (error) {
    assert(error instanceof CheckpointError, `${JSON.stringify(text.slice(0, 300))}: ${error}`);
    return false;
  }
}

Deno.test("1,500 damaged headers: each is read, or refused by a CheckpointError", () => {
  const random = seededRandom(1);
  let accepted = 0;
  for (let i = 0; i < 1500; i++) {
    const text = mutate(HEADER, random);
    const json = random() < 0.2
      ? Uint8Array.from(text, (character) => character.charCodeAt(0))
      : new TextEncoder().encode(text);
    const options = { file: "model.safetensors", fileBytes: 8 + json.length + 32 };
    if (isAccepted(text, () => parseHeader(json, options))) accepted++;
  }
  // Both happen: the mutations are neither harmless nor hopeless.
  assert(accepted > 20 && accepted < 750, `${accepted} accepted`);
});

Deno.test("500 damaged indexes: each is read, or refused by a CheckpointError, and no name leaves the folder", () => {
  const random = seededRandom(2);
  let accepted = 0;
  for (let i = 0; i < 500; i++) {
    const text = mutate(INDEX, random);
    if (
      isAccepted(text, () => {
        const { weightMap } = parseCheckpointIndex(text, { file: "index.json" });
        for (const name of weightMap.values()) assert.match(name, /^[^/\\:\0]+\.safetensors$/);
      })
    ) accepted++;
  }
  assert(accepted > 10 && accepted < 250, `${accepted} accepted`);
});

Deno.test("500 header lengths: each is within the file, or refused by a CheckpointError", () => {
  const random = seededRandom(3);
  for (let i = 0; i < 500; i++) {
    const start = Uint8Array.from(
      { length: Math.floor(random() * 10) },
      () => random() < 0.7 ? 0 : random() * 256,
    );
    const fileBytes = start.length + Math.floor(random() * 300);
    isAccepted(String(start), () => {
      const length = readHeaderLength(start, { file: "model.safetensors", fileBytes });
      assert(length + 8 <= fileBytes);
    });
  }
});

Deno.test("values nested without end are refused, not printed", () => {
  const deep = "[".repeat(200_000) + "]".repeat(200_000);
  for (const text of [`{"w":${deep}}`, `{"__metadata__":{"a":${deep}}}`]) {
    const json = new TextEncoder().encode(text);
    const options = { file: "model.safetensors", fileBytes: 8 + json.length };
    assert(!isAccepted(text, () => parseHeader(json, options)));
  }
  for (const text of [`{"weight_map":{"w":${deep}}}`, `{"weight_map":${deep}}`, deep]) {
    assert(!isAccepted(text, () => parseCheckpointIndex(text, { file: "index.json" })));
  }
});
