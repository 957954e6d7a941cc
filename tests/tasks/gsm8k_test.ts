import assert from "node:assert/strict";
import { join } from "node:path";
import {
  chooseShots,
  extractFlexible,
  extractStrict,
  gsm8kPrompt,
  readGsm8k,
} from "../../train/tasks/gsm8k.ts";
import { SHARED_DATA, testWithSharedData } from "../shared_data.ts";
import { temporaryFolder } from "../tiny_model.ts";

/** An answer, then what strict and flexible extraction find in it. */
const CASES: [text: string, strict: string | undefined, flexible: string | undefined][] = [
  ["#### 18", "18", "18"],
  ["####18", "18", "18"],
  ["####  18 ", "18", "18"],
  ["#### 18.", "18", "18"],
  ["#### 18.00", "18", "18"],
  ["#### 18.50", "18.5", "18.5"],
  ["#### .5", "0.5", "0.5"],
  ["#### 007", "7", "7"],
  ["#### 0", "0", "0"],
  ["#### -0.0", "0", "0"],
  ["#### 1,000", "1000", "1000"],
  ["#### 109,200,000.25", "109200000.25", "109200000.25"],
  ["#### $1,234.50", "1234.5", "1234.5"],
  ["#### $ 5", "5", "5"],
  ["#### -5", "-5", "-5"],
  ["#### −5", "-5", "-5"],
  ["#### -$5", "-5", "-5"],
  ["#### $-5", "-5", "-5"],
  ["#### 50%", "50", "50"],
  ["#### 12 apples", "12", "12"],
  ["#### 5\n\nQuestion: 3", "5", "3"],
  ["#### 5\n#### 6", "5", "6"],
  ["#### none\n#### 6", "6", "6"],
  ["####\n6", undefined, "6"],
  ["#### x = 6", undefined, "6"],
  ["### 6", undefined, "6"],
  ["The answer is 26.", undefined, "26"],
  ["16-3=13", undefined, "13"],
  ["10-3", undefined, "3"],
  ["from 20 - 3", undefined, "3"],
  ["it fell to -3 degrees", undefined, "-3"],
  ["(2)-3", undefined, "3"],
  ["in 2024-05", undefined, "5"],
  ["1, 2, and 3", undefined, "3"],
  ["between 1,2", undefined, "2"],
  ["so 1,2345", undefined, "2345"],
  ["$3.99, $2,000.", undefined, "2000"],
  ["the total is $12.", undefined, "12"],
  ["<<16-3-4=9>>9 eggs", undefined, "9"],
  ["no number", undefined, undefined],
  ["#### ", undefined, undefined],
  ["", undefined, undefined],
];

for (const [text, strict, flexible] of CASES) {
  Deno.test(`GSM8K's answer in ${JSON.stringify(text)}`, () => {
    assert.deepEqual([extractStrict(text), extractFlexible(text)], [strict, flexible]);
  });
}

Deno.test("examples are the same for a seed, and fewer are the first of more", () => {
  const problems = Array.from({ length: 30 }, (_, index) => ({
    question: `${index}?`,
    answer: `#### ${index}`,
    source: { file: "made", index },
  }));
  const of = (count: number, seed: number) => chooseShots(problems, { count, seed });
  assert.deepEqual(of(8, 1), of(8, 1));
  assert.deepEqual(of(3, 1), of(8, 1).slice(0, 3));
  assert.notDeepEqual(of(8, 1), of(8, 2));
  assert.equal(new Set(of(30, 1)).size, 30);
  assert.deepEqual(
    problems.map(({ source }) => source.index),
    [...problems.keys()],
    "the list stays as it was",
  );
  assert.equal(
    gsm8kPrompt("x?", problems.slice(4, 6)),
    "Question: 4?\nAnswer: #### 4\n\nQuestion: 5?\nAnswer: #### 5\n\nQuestion: x?\nAnswer:",
  );
});

const refuses = (what: string, text: string, expected: RegExp) =>
  Deno.test(`GSM8K's reader refuses ${what}`, async () => {
    const path = join(temporaryFolder(), "a.jsonl");
    await Deno.writeTextFile(path, text);
    await assert.rejects(readGsm8k(path), { name: "DataError", message: expected });
  });

refuses("a record without answer", '{"question": "a"}', /a\.jsonl:1: key "answer": .* found nothing/);
refuses(
  "a number as the answer",
  '{"question": "a", "answer": 3}',
  /key "answer": expected a string, found number/,
);
refuses(
  "an answer without mark",
  '{"question": "a", "answer": "3"}',
  /a\.jsonl:1: key "answer": expected "#### "/,
);
refuses("a blank question", '{"question": " ", "answer": "#### 3"}', /key "question": .* only blanks/);

for (const [name, count] of [["test", 1319], ["train", 7473]] as const) {
  testWithSharedData(`every answer of GSM8K's ${name} file has its number`, async () => {
    const problems = await readGsm8k(join(SHARED_DATA, `gsm8k/${name}.jsonl`));
    assert.equal(problems.length, count);
    for (const { answer } of problems) {
      // The files themselves: after the last mark stands nothing but digits, commas, a sign and a point.
      const written = answer.slice(answer.lastIndexOf("#### ") + 5).trim().replaceAll(",", "");
      assert.match(written, /^-?[0-9.]+$/);
      assert.equal(extractStrict(answer), String(Number(written)));
      assert.equal(extractFlexible(answer), String(Number(written)));
    }
  });
}

testWithSharedData("a limit takes the first problems", async () => {
  const path = join(SHARED_DATA, "gsm8k/test.jsonl");
  const [first, second] = await readGsm8k(path, { limit: 2 });
  assert.equal(extractStrict(first.answer), "18");
  assert.equal(second.source.line, 2);
  assert.equal((await readGsm8k(path, { limit: 2 })).length, 2);
});
