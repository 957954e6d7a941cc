import assert from "node:assert/strict";
import { createRandom } from "../../train/random.ts";
import {
  allProblems,
  ARITHMETIC_ALPHABET,
  ARITHMETIC_EOS,
  generateExamples,
  generateHeldOut,
  generatePairs,
  HELD_OUT_COUNT,
  isCorrect,
  isHeldOut,
  PROBLEM_COUNT,
  solveProblem,
  TRAINING_COUNT,
  variants,
} from "../../train/tasks/arithmetic.ts";

Deno.test("chains are the partial results from left to right, least significant digit first", () => {
  assert.equal(solveProblem("37+48-15:"), "58,07$");
  assert.equal(solveProblem("89+10-89:"), "99,01$");
  assert.equal(solveProblem("45-35+11:"), "01,12$");
  assert.equal(solveProblem("89-39-40:"), "05,01$");
});

Deno.test("text that is no problem is refused", () => {
  for (const text of ["37+48-15", "7+48-15:", "37*48-15:", "37+48-95:", "07+48-15:", "37+48-15: ", ""]) {
    assert.throws(() => solveProblem(text), SyntaxError, text);
  }
  assert.throws(() => solveProblem("89+11-15:"), /expected results of 10 to 99, found 100/);
  assert.throws(() => solveProblem("37+48-80:"), /found 5/);
});

Deno.test("the checker takes the chain and nothing else", () => {
  assert.ok(isCorrect("37+48-15:", "58,07$"));
  for (
    const output of ["58,07", "58,07$$", " 58,07$", "58,70$", "85,70$", "07$", "", ...variants("58,07$")]
  ) {
    assert.ok(!isCorrect("37+48-15:", output), output);
  }
});

Deno.test("a chain of four digits has 36 variants, each different in one digit", () => {
  const chain = "58,07$";
  const found = variants(chain);
  assert.equal(new Set(found).size, 36);
  for (const variant of found) {
    assert.match(variant, /^\d\d,\d\d\$$/);
    assert.equal([...variant].filter((character, i) => character !== chain[i]).length, 1);
  }
});

Deno.test("the problems are as many as stated, all different, all solvable, and split as stated", () => {
  let heldOut = 0;
  const problems = new Set<string>();
  for (const problem of allProblems()) {
    problems.add(problem);
    if (isHeldOut(problem)) heldOut++;
    if (problems.size % 97 === 0) solveProblem(problem);
  }
  assert.equal(problems.size, PROBLEM_COUNT);
  assert.equal(heldOut, HELD_OUT_COUNT);
  assert.equal(TRAINING_COUNT + HELD_OUT_COUNT, PROBLEM_COUNT);
  // Counted another way: for each first result, the ways to reach it times the ways to go on.
  const ways = (from: number) =>
    Array.from({ length: 80 }, (_, i) => i + 10).flatMap((n) => [from + n, from - n]).filter((r) =>
      r >= 10 && r <= 99
    );
  const total = Array.from({ length: 80 }, (_, i) => i + 10).flatMap(ways)
    .reduce((sum, first) => sum + ways(first).length, 0);
  assert.equal(total, PROBLEM_COUNT);
});

Deno.test("the held-out share does not depend on a problem's digits or signs", () => {
  const counts = new Map<string, [heldOut: number, all: number]>();
  for (const problem of allProblems()) {
    for (let i = 0; i < problem.length - 1; i++) {
      const key = `${i}${problem[i]}`;
      const count = counts.get(key) ?? [0, 0];
      counts.set(key, [count[0] + (isHeldOut(problem) ? 1 : 0), count[1] + 1]);
    }
  }
  for (const [key, [heldOut, all]] of counts) {
    const standardError = Math.sqrt(15 / 256 / all);
    assert.ok(Math.abs(heldOut / all - 1 / 16) < 4.5 * standardError, `${key}: ${heldOut} of ${all}`);
  }
});

Deno.test("the alphabet has sixteen characters and writes every problem and chain without the pad", () => {
  assert.equal(new Set(ARITHMETIC_ALPHABET).size, 15);
  const used = new Set<string>();
  for (const { prompt, completion } of generateExamples(createRandom(1), 300)) {
    assert.equal(prompt.length, 9);
    assert.equal(completion.length, 6);
    assert.equal(completion.at(-1), ARITHMETIC_EOS);
    for (const character of prompt + completion) used.add(character);
  }
  assert.deepEqual(
    [...used].toSorted(),
    [...ARITHMETIC_ALPHABET].toSorted(),
  );
});

Deno.test("training examples are right, never held out, and a stream by seed", () => {
  const random = createRandom(2);
  const stream = [...generateExamples(random, 200), ...generateExamples(random, 200)];
  assert.ok(stream.every(({ prompt, completion }) => isCorrect(prompt, completion) && !isHeldOut(prompt)));
  assert.deepEqual(generateExamples(createRandom(2), 400), stream);
  assert.ok(new Set(stream.map(({ prompt }) => prompt)).size > 390);
  assert.notDeepEqual(generateExamples(createRandom(3), 400), stream);
});

Deno.test("pairs are of distinct training problems, the rejected chain one digit off", () => {
  const pairs = generatePairs(createRandom(3), 2000);
  assert.equal(new Set(pairs.map(({ prompt }) => prompt)).size, 2000);
  const changedAt = [0, 0, 0, 0, 0, 0];
  for (const [index, { prompt, chosen, rejected, source }] of pairs.entries()) {
    assert.ok(isCorrect(prompt, chosen) && !isCorrect(prompt, rejected) && !isHeldOut(prompt));
    assert.ok(variants(chosen).includes(rejected));
    changedAt[[...chosen].findIndex((character, i) => character !== rejected[i])]++;
    assert.deepEqual(source, { file: "arithmetic", index });
  }
  assert.ok([0, 1, 3, 4].every((i) => changedAt[i] > 400), changedAt.join());
  assert.deepEqual(generatePairs(createRandom(3), 2000), pairs);
});

Deno.test("held-out problems are distinct, right, and in no training set", () => {
  const heldOut = generateHeldOut(createRandom(4), 500);
  assert.equal(new Set(heldOut.map(({ prompt }) => prompt)).size, 500);
  assert.ok(heldOut.every(({ prompt, completion }) => isHeldOut(prompt) && isCorrect(prompt, completion)));
});

Deno.test("more distinct problems than exist are refused", () => {
  assert.throws(() => generateHeldOut(createRandom(1), HELD_OUT_COUNT + 1), {
    name: "RangeError",
    message: `Cannot draw distinct problems: expected a count of 1 to ${HELD_OUT_COUNT}, found ${
      HELD_OUT_COUNT + 1
    }`,
  });
  assert.throws(() => generatePairs(createRandom(1), 0), RangeError);
});
