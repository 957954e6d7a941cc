import assert from "node:assert/strict";
import { join } from "node:path";
import { parseRunConfig } from "../../train/config.ts";
import { release, scope, toHost } from "../../engine/tensor.ts";
import { createMetricsRing } from "../../train/metrics.ts";
import { sftObjective } from "../../train/objective.ts";
import { gpuTest } from "../gpu.ts";
import { DIGIT_PAIRS, runTask, succeed, writeCheckpoint, writeLines } from "../story/user.ts";
import { lossOf, referenceTokenLogps, sum, temporaryFolder, tinyModel } from "../tiny_model.ts";
import { assertClose } from "../ops/check_op.ts";

const parse = (raw: Record<string, unknown>) => parseRunConfig(raw, { describe: (path) => path.join(".") });

Deno.test("assistantOnlyLoss is of sft alone, and stands in its config.json alone", () => {
  assert.equal(parse({ loss: "sft", assistantOnlyLoss: true }).assistantOnlyLoss, true);
  assert.throws(
    () => parse({ assistantOnlyLoss: true }),
    /assistantOnlyLoss: expected sft as loss, found dpo$/,
  );
  assert.throws(() => parse({ loss: "kto", assistantOnlyLoss: true }), /expected sft as loss, found kto$/);
});

gpuTest("the loss of a masked completion is the mean over the tokens that are learnt", async (gpu) => {
  using model = tinyModel(gpu);
  const source = { file: "x" };
  const labelMask = [true, true, false, false, true];
  const masked = { promptIds: [1, 2], completionIds: [3, 4, 5, 6, 7], labelMask, source };
  const plain = { promptIds: [1], completionIds: [9, 2], source };
  const logps = await referenceTokenLogps(model, [masked, plain]);
  const learnt = [...logps[0].filter((_, token) => labelMask[token]), ...logps[1]];
  using ring = createMetricsRing(gpu, 1);
  using objective = sftObjective(model, [masked, plain]);
  const items = Uint32Array.of(0, 1);
  const loss = scope(gpu, () => lossOf(objective, { items, step: 1, metrics: ring.tensor }));
  assertClose([(await toHost(loss))[0]], [-sum(learnt) / 5], { what: "loss" });
  release(loss);
});

Deno.test("train --loss sft learns from completions, dialogues, turns, texts and preferences together", async () => {
  const folder = temporaryFolder();
  const model = join(folder, "model");
  await writeCheckpoint(model);
  const user = (content: string) => ({ role: "user", content });
  const assistant = (content: string) => ({ role: "assistant", content });
  const files = {
    completion: DIGIT_PAIRS.map(({ prompt, chosen }) => ({ prompt, completion: chosen })),
    dialogue: DIGIT_PAIRS.map(({ prompt, chosen }) => ({ messages: [user(prompt), assistant(chosen)] })),
    turns: DIGIT_PAIRS.map(({ prompt, chosen }) => ({
      conversations: [{ from: "human", value: prompt }, { from: "gpt", value: chosen }],
    })),
    text: DIGIT_PAIRS.map(({ prompt, chosen }) => ({ text: prompt + chosen })),
    preferences: DIGIT_PAIRS,
  };
  const paths: Record<string, string> = {};
  for (const [name, records] of Object.entries(files)) {
    paths[name] = await writeLines(join(folder, `${name}.jsonl`), records);
  }
  const flags = ["--model", model, "--loss", "sft", "--batch-size", "4", "--learning-rate", "0.01"];
  const run = async (data: string, more: string[] = []) => {
    const output = join(folder, `run-${data.replaceAll(/[^a-z]/g, "").slice(-20)}-${more.length}`);
    const out = await succeed("train", [...flags, "--data", data, ...more, "--output", output]);
    return { out, ...JSON.parse(await Deno.readTextFile(join(output, "results.json"))) };
  };
  const all = await run(Object.values(paths).join(), ["--max-steps", "20", "--eval-data", paths.completion]);
  for (const name of Object.keys(files)) assert.match(all.out, new RegExp(`${name}\\.jsonl: 8 completions`));
  const [before, after] = all.results;
  assert.ok(after.evaluation.loss < before.evaluation.loss - 0.3, JSON.stringify(all.results));
  assert.ok(Math.abs(after.evaluation.perplexity - Math.exp(after.evaluation.loss)) < 1e-6);
  assert.match(all.out, /^8 held-out completions, sft:$/m);
  // Preferences alone are pairs: chosen answers are learnt, both are measured.
  const pairs = await run(paths.preferences, ["--max-steps", "2"]);
  assert.ok(pairs.results[1].evaluation.rewardAccuracy !== undefined);

  const dialogue = [user("1+1:"), assistant("2$"), user("2+1:"), assistant("3$")];
  const long = await writeLines(join(folder, "long.jsonl"), Array(4).fill({ messages: dialogue }));
  const masked = await run(long, ["--assistant-only-loss", "--max-steps", "2"]);
  assert.match(masked.out, /long\.jsonl: 4 completions/);
  const plan = async (more: string[]) =>
    Number(
      /^sft +1 +\d+ +(\d+)$/m.exec(
        await succeed("train", [...flags, "--data", long, "--max-steps", "1", "--dry-run", ...more]),
      )![1],
    );
  // Two tokens and the end of a turn each.
  assert.deepEqual([await plan([]), await plan(["--assistant-only-loss"])], [4 * 2, 4 * 4]);
  const refused = await runTask("train", [...flags, "--data", paths.text, "--assistant-only-loss"]);
  assert.match(
    refused.error,
    /^error: Cannot encode .*text\.jsonl:1: expected messages with assistantOnlyLoss, found texts$/m,
  );
  const labelled = await writeLines(join(folder, "labelled.jsonl"), [{
    prompt: "1",
    completion: "2",
    label: false,
  }]);
  const bad = await runTask("train", [...flags, "--data", labelled]);
  assert.match(
    bad.error,
    /^error: Cannot read .*labelled\.jsonl:1: .*found labelled answers, which are for kto$/m,
  );
});
