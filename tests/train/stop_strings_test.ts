import assert from "node:assert/strict";
import { createStopStrings } from "../../train/generation/stop_strings.ts";

/** Everything that a filter passes on of a text in pieces of a length. */
function passed(text: string, strings: string[], length: number): { text: string; isStopped: boolean } {
  const stop = createStopStrings(strings);
  let result = "";
  for (let start = 0; start < text.length; start += length) {
    result += stop.push(text.slice(start, start + length));
  }
  return { text: result + stop.end(), isStopped: stop.isStopped };
}

Deno.test("the text before the first stop string is passed on, wherever pieces end", () => {
  const cases: [text: string, strings: string[], expected: string, isStopped: boolean][] = [
    ["no stop here", ["User:"], "no stop here", false],
    ["Hi! User: you", ["User:", "\n\n"], "Hi! ", true],
    ["aab", ["ab"], "a", true],
    ["aaab aab", ["aaaab", "aab"], "a", true],
    ["abcabd", ["abd"], "abc", true],
    ["abc", ["bc", "abc"], "", true],
    ["ends in a beginnin", ["beginning"], "ends in a beginnin", false],
    ["", ["x"], "", false],
    ["anything", [], "anything", false],
  ];
  for (const [text, strings, expected, isStopped] of cases) {
    for (const length of [1, 2, 3, 100]) {
      assert.deepEqual(passed(text, strings, length), { text: expected, isStopped }, `${text} by ${length}`);
    }
  }
});

Deno.test("a stop string that comes in one piece with a longer one's beginning is found at its first place", () => {
  const stop = createStopStrings(["<end>", "\n"]);
  assert.equal(stop.push("a<en"), "a");
  assert.equal(stop.push("e"), "<ene");
  assert.equal(stop.push("b\nc<end>"), "b");
  assert.equal(stop.push("more"), "");
  assert.throws(() => createStopStrings([""]), RangeError);
});
