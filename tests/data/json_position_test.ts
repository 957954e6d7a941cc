import assert from "node:assert/strict";
import { findJsonError } from "../../train/data/json_position.ts";
import { createRandom, uniformInt } from "../../train/random.ts";

const CASES: [text: string, place: string, expected: RegExp, found: string][] = [
  ["", "1:1", /a value/, "the end of the text"],
  ["[1, 2", "1:6", /"," or "\]"/, "the end of the text"],
  ['[\n  {"a": 1},\n  {"a" 2}\n]', "3:8", /":"/, '"2"'],
  ['{"a": 1,}', "1:9", /a key in double quotes/, '"}"'],
  ["[1,]", "1:4", /a value/, '"]"'],
  ["{a: 1}", "1:2", /a key in double quotes/, '"a"'],
  ['["a\nb"]', "1:4", /closing quote/, '"\\n"'],
  ['["\\x"]', "1:3", /a valid escape/, '"\\\\"'],
  ['["open', "1:7", /closing quote/, "the end of the text"],
  ["[01]", "1:3", /"," or "\]"/, '"1"'],
  ["[NaN]", "1:2", /a value/, '"N"'],
  ["{}\n{}", "2:1", /the end of the text/, '"{"'],
  ["[}", "1:2", /a value/, '"}"'],
  ['{"a": [1}', "1:9", /"," or "\]"/, '"}"'],
  ["[😀]", "1:2", /a value/, '"😀"'],
];

for (const [text, place, expected, found] of CASES) {
  Deno.test(`a JSON error is found in ${JSON.stringify(text)}`, () => {
    const error = findJsonError(text);
    assert.equal(`${error?.line}:${error?.column}`, place);
    assert.match(error!.expected, expected);
    assert.equal(error!.found, found);
  });
}

Deno.test("valid JSON has no error", () => {
  const value = { a: [1, -2.5e-3, true, false, null, {}, []], 'k"\\\n\u0001é': "v\t" };
  for (const text of [JSON.stringify(value), JSON.stringify(value, null, 2), ' "x" ', "0", "-0.0E+5"]) {
    assert.equal(findJsonError(text), undefined);
  }
});

Deno.test("a damaged text has an error exactly when JSON.parse refuses it", () => {
  const random = createRandom(1);
  const original = '[{"a": -1.5e3, "b\\u0041": [true, null, {}]}, {"c": "d"}]';
  const alphabet = '{}[],:"\\ 0a-.e\n';
  let refused = 0;
  for (let i = 0; i < 2000; i++) {
    const at = uniformInt(random, original.length);
    const text = original.slice(0, at) + alphabet[uniformInt(random, alphabet.length)] +
      original.slice(at + 1);
    let valid = true;
    try {
      JSON.parse(text);
    } catch {
      valid = false;
      refused++;
    }
    assert.equal(findJsonError(text) === undefined, valid, text);
  }
  assert.ok(refused > 1000 && refused < 2000);
});

Deno.test("a long string and deep nesting do not exhaust the stack", () => {
  assert.equal(findJsonError(JSON.stringify("x\\".repeat(500_000))), undefined);
  assert.equal(findJsonError("[".repeat(200_000) + "]".repeat(200_000)), undefined);
});
