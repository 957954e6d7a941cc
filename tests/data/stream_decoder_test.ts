import assert from "node:assert/strict";
import { createStreamDecoder } from "../../train/data/stream_decoder.ts";
import { createRandom, uniformInt } from "../../train/random.ts";

/** One token per byte; 256 is special. */
const BYTES = {
  decode(ids: Iterable<number>, options: { skipSpecialTokens?: boolean } = {}): string {
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    let text = "";
    for (const id of ids) {
      text += id < 256
        ? decoder.decode(Uint8Array.of(id), { stream: true })
        : decoder.decode() + (options.skipSpecialTokens ? "" : "<end>");
    }
    return text + decoder.decode();
  },
};
const bytesOf = (text: string) => [...new TextEncoder().encode(text)];

Deno.test("a character comes with its last byte, and what follows it at once", () => {
  const stream = createStreamDecoder(BYTES);
  assert.deepEqual(bytesOf("a€b👍").map((id) => stream.push(id)), ["a", "", "", "€", "b", "", "", "", "👍"]);
  assert.equal(stream.end(), "");
});

Deno.test("the end gives what was held back, and the decoder begins anew", () => {
  const stream = createStreamDecoder(BYTES);
  assert.deepEqual(bytesOf("a€").slice(0, 3).map((id) => stream.push(id)), ["a", "", ""]);
  assert.equal(stream.end(), "\ufffd");
  assert.equal(stream.end(), "");
  assert.equal(stream.push(0xac), "");
  assert.equal(stream.push(0x62), "\ufffdb");
});

Deno.test("special tokens are left out where asked, and cut a character short", () => {
  const ids = [...bytesOf("é"), 256, 0xe2, 256, 0x61];
  const push = (skipSpecialTokens: boolean) => {
    const stream = createStreamDecoder(BYTES, { skipSpecialTokens });
    return ids.map((id) => stream.push(id));
  };
  assert.deepEqual(push(false), ["", "é", "<end>", "", "\ufffd<end>", "a"]);
  assert.deepEqual(push(true), ["", "é", "", "", "", "\ufffda"]);
});

Deno.test("bytes that are broken for good are not held back for ever", () => {
  const stream = createStreamDecoder(BYTES);
  let text = "";
  for (let i = 1; i <= 100; i++) {
    text += stream.push(0xff);
    assert(i - text.length < 8, `${i - text.length} held`);
  }
  assert.equal(text + stream.end(), "\ufffd".repeat(100));
});

Deno.test("the pieces of any text are the text, and none ends within a character", () => {
  const random = createRandom(3);
  const alphabet = Array.from("aé€👍\ufeff\n你\u0301");
  for (let run = 0; run < 200; run++) {
    const text = Array.from(
      { length: uniformInt(random, 12) },
      () => alphabet[uniformInt(random, alphabet.length)],
    )
      .join("");
    const stream = createStreamDecoder(BYTES);
    const pieces = bytesOf(text).map((id) => stream.push(id));
    assert(pieces.every((piece) => piece.isWellFormed() && !piece.includes("\ufffd")));
    assert.equal(pieces.join(""), text);
    assert.equal(stream.end(), "");
  }
});

Deno.test("an id that is none is passed on as the tokenizer's error", () => {
  const refusing = {
    decode(ids: Iterable<number>): string {
      for (const id of ids) if (id < 0) throw new RangeError("Cannot decode: expected token ids, found -1");
      return "";
    },
  };
  assert.throws(() => createStreamDecoder(refusing).push(-1), RangeError);
});
