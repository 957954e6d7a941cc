import assert from "node:assert/strict";
import { CheckpointError } from "../../train/errors.ts";
import { parseCheckpointIndex } from "../../train/models/checkpoint_index.ts";
import { parseHeader, readHeaderLength } from "../../train/models/safetensors_header.ts";
import { HEADER, INDEX } from "../fuzz/checkpoint_texts.ts";
import { fuzzTest } from "../fuzz/harness.ts";
import { mutateText } from "../fuzz/mutate.ts";

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
const refusal = CheckpointError;

fuzzTest("1,500 damaged headers: each is read, or refused by a CheckpointError", {
  target: {
    refusal,
    attempt(random) {
      const text = mutate(HEADER, random);
      const json = random() < 0.2
        ? Uint8Array.from(text, (character) => character.charCodeAt(0))
        : new TextEncoder().encode(text);
      parseHeader(json, { file: "model.safetensors", fileBytes: 8 + json.length + 32 });
    },
  },
  ...{ inputs: 1500, seed: 1, accepted: [20, 750] },
});

fuzzTest(
  "500 damaged indexes: each is read, or refused by a CheckpointError, and no name leaves the folder",
  {
    target: {
      refusal,
      attempt(random) {
        const { weightMap } = parseCheckpointIndex(mutate(INDEX, random), { file: "index.json" });
        for (const name of weightMap.values()) assert.match(name, /^[^/\\:\0]+\.safetensors$/);
      },
    },
    ...{ inputs: 500, seed: 2, accepted: [10, 250] },
  },
);

fuzzTest("500 header lengths: each is within the file, or refused by a CheckpointError", {
  target: {
    refusal,
    attempt(random) {
      const start = Uint8Array.from(
        { length: Math.floor(random() * 10) },
        () => random() < 0.7 ? 0 : random() * 256,
      );
      const fileBytes = start.length + Math.floor(random() * 300);
      assert(readHeaderLength(start, { file: "model.safetensors", fileBytes }) + 8 <= fileBytes);
    },
  },
  ...{ inputs: 500, seed: 3, accepted: [0, 500] },
});

Deno.test("values nested without end are refused, not printed", () => {
  const refuses = (parse: () => unknown) => assert.throws(parse, CheckpointError);
  const deep = "[".repeat(200_000) + "]".repeat(200_000);
  for (const text of [`{"w":${deep}}`, `{"__metadata__":{"a":${deep}}}`]) {
    const json = new TextEncoder().encode(text);
    refuses(() => parseHeader(json, { file: "model.safetensors", fileBytes: 8 + json.length }));
  }
  for (const text of [`{"weight_map":{"w":${deep}}}`, `{"weight_map":${deep}}`, deep]) {
    refuses(() => parseCheckpointIndex(text, { file: "index.json" }));
  }
});
