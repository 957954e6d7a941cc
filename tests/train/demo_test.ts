/**
 * The demonstration, whole but at toy size.
 *
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { parse } from "yaml";
import { parseRunConfig } from "../../train/config.ts";
import { runDemo } from "../../train/demo.ts";
import { demoSettings } from "../../train/demo_settings.ts";
import { dpo } from "../../train/losses/dpo.ts";
import { loadModel } from "../../train/models/model_files.ts";
import { readRun } from "../../train/report/read_run.ts";
import type { MetricsRecord } from "../../train/metrics.ts";
import type { MetricsSink } from "../../train/metrics_sink.ts";
import { readCard } from "../../train/model_card/files.ts";
import { demoCard } from "../../train/model_card/run_card.ts";
import { openMetrics } from "../../train/run_folder.ts";
import type { Session } from "../../train/session.ts";
import { isCorrect } from "../../train/tasks/arithmetic.ts";
import { gpuTest } from "../gpu.ts";

const loss = dpo.resolve({});
const settingsOf = (raw: Record<string, unknown>) => {
  const given = Object.entries(raw).flatMap(([name, value]) =>
    value instanceof Object ? Object.keys(value).map((key) => `${name}.${key}`) : [name]
  );
  const config = parseRunConfig(raw, { describe: (path) => path.join(".") });
  return demoSettings(config, new Set(given), { lossOptions: loss.options });
};

gpuTest("the demonstration trains three phases from one seed and saves models that load", async (gpu) => {
  const folder = await Deno.makeTempDir();
  const { sft, preference, ...rest } = settingsOf({ logEvery: 2 });
  const settings = {
    ...rest,
    sft: { ...sft, steps: 4, batchSize: 8, examples: 64 },
    preference: { ...preference, steps: 2, batchSize: 4, pairs: 16 },
    heldOut: 8,
    massProblems: 2,
  };
  try {
    using metrics = openMetrics(join(folder, "metrics.jsonl"));
    const progress = () => ({ update() {}, finish() {} });
    const lines: string[] = [];
    let last: MetricsRecord | undefined;
    const card = demoCard(settings, { loss, adapter: "an adapter", last: () => last });
    const log = (line: string) => lines.push(line);
    const both: MetricsSink = { ...metrics, append: (record) => metrics.append(last = record) };
    const session: Session = { gpu, folder, metrics: both, card, progress, log };
    const results = await runDemo(session, settings, { loss });
    await card.finish(results);
    assert.deepEqual(results.map(({ phase }) => phase), ["sft", "dpo", "dpo+spo"]);
    const [reference, ...others] = results;
    assert.equal(reference.evaluation.chosenDelta, 0, "a model does not differ from itself");
    for (const { evaluation } of others) assert.notEqual(evaluation.chosenDelta, 0);
    const logged = (await Deno.readTextFile(join(folder, "metrics.jsonl"))).trim().split("\n").map((line) =>
      JSON.parse(line)
    );
    assert.deepEqual(logged.map(({ phase, global_step }) => [phase, global_step]), [
      ["sft", 2],
      ["sft", 4],
      ["dpo", 2],
      ["dpo+spo", 2],
    ]);
    const { samples } = await readRun(folder);
    assert.deepEqual(
      samples.map(({ phase }) => phase),
      ["sft", "dpo", "dpo+spo"].flatMap((of) => Array(4).fill(of)),
    );
    assert.equal(new Set(samples.map(({ prompt }) => prompt)).size, 4, "the same prompts after each phase");
    assert.ok(samples.every(({ prompt, chosen }) => isCorrect(prompt, chosen!)));
    for (const name of ["model-sft", "model-preference", "model"]) {
      const { model, tokenizer } = await loadModel(gpu, join(folder, name), { trainable: false });
      assert.equal(tokenizer.vocabSize, model.config.vocab_size);
      model[Symbol.dispose]();
    }
    const tags: Record<string, string[]> = {
      "model-sft": ["sft"],
      "model-preference": ["dpo"],
      model: ["dpo", "spo"],
    };
    for (const [name, expected] of Object.entries(tags)) {
      const text = await readCard(join(folder, name)) ?? "";
      assert.deepEqual(parse(text.split("---\n")[1]).tags, ["keel", "transformers", ...expected]);
      assert.match(text, /^\| +\| +`sft` +\| +`dpo` +\| +`dpo\+spo` +\|$/m, "the results of all phases");
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("the demonstration refuses flags that it would not read", () => {
  assert.throws(
    () => settingsOf({ maxLength: 64 }),
    /Cannot use maxLength: expected --model and --data with it/,
  );
  assert.throws(() => settingsOf({ loss: "sft" }), /Cannot use loss: expected a pairwise loss/);
  assert.throws(() => settingsOf({ spo: { solver: "none" } }), /spo\.solver/);
  assert.equal(settingsOf({ maxSteps: 7, csv: true, tensorboard: true }).preference.steps, 7);
});
