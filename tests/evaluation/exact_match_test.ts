import assert from "node:assert/strict";
import { encodePrompt } from "../../train/data/encode.ts";
import {
  type AnsweredQuestion,
  type AnswerTask,
  evaluateAnswers,
} from "../../train/evaluation/exact_match.ts";
import { arithmeticTask, gsm8kTask } from "../../train/evaluation/tasks.ts";
import { generate } from "../../train/generate.ts";
import { isHeldOut, solveProblem } from "../../train/tasks/arithmetic.ts";
import { gpuTest } from "../gpu.ts";
import { tinyModel, tinyTokenizer } from "../tiny_model.ts";

const TOKENIZER = tinyTokenizer();
const PROMPTS = ["12+3:", "7:", "45-1:", "9,9:", "0+0:", "88:"];

function taskOf(change: Partial<AnswerTask> = {}): AnswerTask {
  return {
    questions: PROMPTS.map((prompt, index) => ({ prompt, answer: "", source: { file: "made", index } })),
    maxNewTokens: 24,
    stopStrings: [],
    keepSpecialTokens: true,
    measures: ["even", "all"],
    check: ({ source }, output) => ({
      even: { extracted: output, right: source.index! % 2 === 0 },
      all: { extracted: null, right: true },
    }),
    ...change,
  };
}

gpuTest(
  "answers are those of greedy decoding, whatever the batches, and are counted by measure",
  async (gpu) => {
    using model = tinyModel(gpu, { seed: 3, trainable: false, config: { max_position_embeddings: 64 } });
    const ids = PROMPTS.map((prompt) => encodePrompt(prompt, { tokenizer: TOKENIZER }));
    const expected = await generate(model, ids, { maxNewTokens: 24, stopIds: [14] });
    const ended = expected.filter((answer) => answer.at(-1) === 14).length;
    assert.ok(ended > 0 && ended < 6, "some answers must end, others not");
    for (const batchTokens of [1, 70, 4096]) {
      const answered: AnsweredQuestion[] = [];
      const done: number[] = [];
      const found = await evaluateAnswers(model, taskOf(), {
        tokenizer: TOKENIZER,
        batchTokens,
        onAnswer: (answer) => void answered.push(answer),
        onProgress: (count) => void done.push(count),
      });
      assert.deepEqual(
        answered.map(({ output }) => output),
        expected.map((answer) => TOKENIZER.decode(answer)),
      );
      assert.deepEqual(answered.map(({ prompt }) => prompt), PROMPTS);
      assert.equal(found.questions, 6);
      assert.deepEqual([found.exactMatch.even.value, found.exactMatch.all.value], [0.5, 1]);
      assert.equal(found.unended, 6 - ended);
      assert.deepEqual([...new Set(done)].at(-1), 6);
    }
  },
);

gpuTest("a stop string ends an answer and is no part of it", async (gpu) => {
  using model = tinyModel(gpu, { seed: 3, trainable: false, config: { max_position_embeddings: 64 } });
  const outputsOf = async (stopStrings: string[], keepSpecialTokens: boolean) => {
    const outputs: string[] = [];
    const task = taskOf({ stopStrings, keepSpecialTokens });
    const onAnswer = ({ output }: AnsweredQuestion) => void outputs.push(output);
    return { outputs, ...await evaluateAnswers(model, task, { tokenizer: TOKENIZER, onAnswer }) };
  };
  const whole = (await outputsOf([], true)).outputs;
  // Two characters that a second part of the decoding brings.
  const long = whole.find((output) => output.length >= 24)!;
  const stop = long.slice(17, 19);
  const cut = whole.map((output) =>
    output.slice(0, output.includes(stop) ? output.indexOf(stop) : undefined)
  );
  const found = await outputsOf([stop, "never"], true);
  assert.deepEqual(found.outputs, cut);
  assert.ok(found.unended < 6);
  const plain = await outputsOf([], false);
  assert.deepEqual(plain.outputs, whole.map((output) => output.replaceAll(/\$|<unk>/g, "")));
});

gpuTest("a prompt that leaves no room is refused before anything is decoded", async (gpu) => {
  using model = tinyModel(gpu, { trainable: false });
  const run = evaluateAnswers(model, taskOf({ maxNewTokens: 28 }), {
    tokenizer: TOKENIZER,
    onProgress: () => assert.fail("nothing may run"),
  });
  await assert.rejects(run, {
    name: "ConfigError",
    message:
      /Cannot ask made\[0\]: expected a prompt of at most 4 tokens \(32 positions less 28 new tokens\), found 5/,
  });
});

Deno.test("the arithmetic task asks held-out problems and wants the whole chain", () => {
  const task = arithmeticTask({ count: 20, seed: 4 });
  assert.equal(new Set(task.questions.map(({ prompt }) => prompt)).size, 20);
  assert.equal(task.maxNewTokens, 6);
  for (const question of task.questions) {
    assert.ok(isHeldOut(question.prompt));
    assert.equal(question.answer, solveProblem(question.prompt));
    const right = (output: string) => task.check(question, output).exact.right;
    assert.deepEqual([right(question.answer), right(question.answer.slice(0, -1)), right("")], [
      true,
      false,
      false,
    ]);
  }
  assert.deepEqual(arithmeticTask({ count: 20, seed: 4 }).questions, task.questions);
  assert.notDeepEqual(arithmeticTask({ count: 20, seed: 5 }).questions, task.questions);
});

const problem = (question: string, answer: number, index = 0) => ({
  question,
  answer: `Think.\n#### ${answer}`,
  source: { file: "made", index },
});
/** One id a character, and no BOS. */
const CHARACTERS = tinyTokenizer(60);
const EXAMPLES = Array.from({ length: 20 }, (_, index) => problem("1+1", 2, index));
/** Characters of an example, and of a question without its text. */
const [SHOT, REST] = ["Question: 1+1\nAnswer: Think.\n#### 2\n\n".length, "Question: \nAnswer:".length];

function gsm8k(options: { shots?: number; positions: number; questions?: string[]; examples?: number }) {
  const { questions = ["5+5", "123"], shots, positions, examples = 20 } = options;
  return gsm8kTask(questions.map((text) => problem(text, 10)), {
    examples: EXAMPLES.slice(0, examples),
    ...(shots === undefined ? {} : { shots }),
    ...{ maxNewTokens: 10, seed: 0, tokenizer: CHARACTERS, positions },
  });
}

Deno.test("GSM8K prompts hold eight examples, or as many as fit the longest question", () => {
  const room = (shots: number, question = 3) => shots * SHOT + REST + question + 10;
  assert.equal(gsm8k({ positions: 10_000 }).shots, 8);
  assert.equal(gsm8k({ positions: 10_000, examples: 5 }).shots, 5);
  assert.equal(gsm8k({ positions: 10_000, examples: 0 }).shots, 0);
  assert.equal(gsm8k({ positions: room(3) }).shots, 3);
  assert.equal(gsm8k({ positions: room(3) - 1 }).shots, 2);
  assert.equal(gsm8k({ positions: room(3), questions: ["1", "12345"] }).shots, 2);
  assert.equal(gsm8k({ positions: 10_000, shots: 0 }).shots, 0);
  assert.equal(gsm8k({ positions: room(12), shots: 12 }).shots, 12);
  assert.throws(() => gsm8k({ positions: room(3), shots: 4 }), {
    name: "ConfigError",
    message: /Cannot use --shots 4: expected prompts of at most \d+ tokens .*; 3 shots fit/,
  });
  assert.throws(() => gsm8k({ positions: 5, shots: 4 }), /not even 0 shots fit/);
  assert.throws(() => gsm8k({ positions: 10_000, shots: 21 }), /so many records, found 20/);
});

Deno.test("GSM8K answers are right by the marked number, or by the last", () => {
  const { task } = gsm8k({ positions: 10_000 });
  const [question] = task.questions;
  assert.equal(question.answer, "10");
  assert.deepEqual(task.check(question, " 5+5=10\n#### 10.0"), {
    strict: { extracted: "10", right: true },
    flexible: { extracted: "10", right: true },
  });
  assert.deepEqual(task.check(question, "#### 10 of 11"), {
    strict: { extracted: "10", right: true },
    flexible: { extracted: "11", right: false },
  });
  assert.deepEqual(task.check(question, "ten"), {
    strict: { extracted: null, right: false },
    flexible: { extracted: null, right: false },
  });
  assert.deepEqual(task.stopStrings, ["Question:", "\n\n"]);
  assert.deepEqual(gsm8k({ positions: 10_000, shots: 0 }).task.stopStrings, ["Question:"]);
});
