import assert from "node:assert/strict";
import { evaluatePairs, exactMatch, outOfDistributionMass } from "../../train/evaluate.ts";
import { generate } from "../../train/generate.ts";
import { gpuTest } from "../gpu.ts";
import { assertClose } from "../ops/check_op.ts";
import { randomPairs, referenceTokenLogps, sum, tinyModel, tinyTokenizer } from "../tiny_model.ts";

const PAIRS = randomPairs(7, 31);

gpuTest("an evaluation's numbers are those of the f64 model", async (gpu) => {
  using model = tinyModel(gpu, { trainable: false });
  const mean = (values: number[]) => sum(values) / values.length;
  const logps = async (side: "chosen" | "rejected") =>
    (await referenceTokenLogps(model, PAIRS.map((pair) => pair[side]))).map(sum);
  const [won, lost] = [await logps("chosen"), await logps("rejected")];
  // A reference made so that margins are 2, -2, 2, ...: four of seven pairs are won.
  const reference = {
    chosen: Float32Array.from(won, (value, i) => value - (i % 2 === 0 ? 3 : -1)),
    rejected: Float32Array.from(lost, (value) => value - 1),
  };
  const found = await evaluatePairs(model, PAIRS, { reference, beta: 0.5 });
  const expected = {
    ...{ logpsChosen: mean(won), logpsRejected: mean(lost) },
    ...{ chosenDelta: (4 * 3 - 3) / 7, rejectedDelta: 1, rewardMargin: 0.5 * 2 / 7, rewardAccuracy: 4 / 7 },
  };
  assert.deepEqual(Object.keys(found), Object.keys(expected));
  assertClose(Object.values(found), Object.values(expected), { what: "evaluation" });
});

gpuTest("exact match asks the checker about each decoded answer, its end included", async (gpu) => {
  using model = tinyModel(gpu, { seed: 3, trainable: false });
  const tokenizer = tinyTokenizer();
  const alphabet = "0123456789+-:,$";
  const prompts = ["12+3:", "7:", "45-1:", "9,9:", "0+0:", "88:"];
  const ids = prompts.map((prompt) => Array.from(prompt, (character) => alphabet.indexOf(character)));
  const answers = await generate(model, ids, { maxNewTokens: 20, stopIds: [14] });
  const text = (answer: number[]) => answer.map((id) => alphabet[id] ?? "<unk>").join("");
  assert.ok(answers.some((answer) => answer.at(-1) === 14), `an answer must end: ${answers.map(text)}`);
  const asked: [string, string][] = [];
  const progress: [number, number][] = [];
  const rate = await exactMatch(model, {
    task: {
      prompts,
      maxNewTokens: 20,
      isCorrect(prompt, output) {
        asked.push([prompt, output]);
        return prompts.indexOf(prompt) < 2;
      },
    },
    tokenizer,
    onProgress: (done, total) => void progress.push([done, total]),
  });
  assert.deepEqual(asked, prompts.map((prompt, index) => [prompt, text(answers[index])]));
  assert.equal(rate, 2 / 6);
  assert.deepEqual(progress, [[6, 6]]);
});

gpuTest("out-of-distribution mass is one minus the mass of the known answers", async (gpu) => {
  using model = tinyModel(gpu, { trainable: false });
  const [{ chosen }] = PAIRS;
  const every = Array.from({ length: 16 }, (_, id) => ({ ...chosen, completionIds: [id] }));
  // All answers of one token hold all the mass, so half of them leave the rest.
  assertClose([await outOfDistributionMass(model, [every])], [0], { what: "all" });
  const logps = (await referenceTokenLogps(model, every.slice(0, 6))).map(sum);
  const known = sum(logps.map(Math.exp));
  const expected = 1 - (known + 1) / 2;
  assertClose([await outOfDistributionMass(model, [every.slice(0, 6), every])], [expected], { what: "mean" });
});
