import assert from "node:assert/strict";
import { join } from "node:path";
import { effectiveSettings, parseRunConfig } from "../../train/config.ts";
import { dataWeightsOf } from "../../train/data_settings.ts";
import { changeRunData } from "../../train/change_run_data.ts";
import { sftObjective } from "../../train/objective.ts";
import { trainOptions } from "../../train/run.ts";
import type { RunData } from "../../train/run_data.ts";
import { train } from "../../train/trainer.ts";
import { gpuTest } from "../gpu.ts";
import { DIGIT_PAIRS, runTask, succeed, writeCheckpoint, writeLines } from "../story/user.ts";
import { randomCompletions, temporaryFolder, tinyModel, tinyTokenizer } from "../tiny_model.ts";

const parse = (raw: Record<string, unknown>) => parseRunConfig(raw, { describe: (path) => path.join(".") });

Deno.test("weights are numbers above 0, as many as files; config.json keeps them", () => {
  const config = parse({ data: "a.jsonl,b.jsonl", dataWeights: "3, 0.5" });
  assert.deepEqual(dataWeightsOf(config), [3, 0.5]);
  assert.equal(effectiveSettings(config).dataWeights, "3, 0.5");
  assert.equal(dataWeightsOf(parse({ data: "a.jsonl" })), undefined);
  const expected = /^Cannot use dataWeights: expected a number above 0 for each of the 2 files/;
  for (const dataWeights of ["1", "1,2,3", "1,0", "1,-1", "1,", "1,x", "1,Infinity"]) {
    assert.throws(() => parse({ data: "a.jsonl,b.jsonl", dataWeights }), {
      name: "ConfigError",
      message: expected,
    }, dataWeights);
  }
});

gpuTest("training draws from files by their weights, in exact shares of every epoch", async (gpu) => {
  using model = tinyModel(gpu);
  // 6 items, then 18: weights 3 and 1 turn the shares round.
  using objective = sftObjective(model, randomCompletions(24, 1));
  const drawn: number[] = [];
  const config = parse({ batchSize: 4, maxSteps: 12, learningRate: 1e-3 });
  const parts = [{ count: 6, weight: 3 }, { count: 18, weight: 1 }];
  const watched = {
    ...objective,
    pack: (items: Uint32Array, size: Parameters<typeof objective.pack>[1]) => {
      drawn.push(...items);
      return objective.pack(items, size);
    },
  };
  await train(watched, trainOptions(config, parts));
  drawn.splice(0, drawn.length - 48); // the first batch is packed once more, to size the buffers
  for (const epoch of [drawn.slice(0, 24), drawn.slice(24)]) {
    assert.equal(epoch.filter((item) => item < 6).length, 18);
  }
  // Three passes over the small file in an epoch; the large one goes on where it stood.
  const times = (item: number) => drawn.filter((other) => other === item).length;
  assert.deepEqual([0, 1, 2, 3, 4, 5].map(times), Array(6).fill(6));
  assert.ok(Array.from({ length: 18 }, (_, index) => times(6 + index)).every((count) => count <= 1));
});

Deno.test("a shorter max length takes items from the file that had them, or refuses to leave a file empty", () => {
  const side = (length: number) => ({
    promptIds: [1, 2],
    completionIds: Array.from({ length }, (_, i) => i + 3),
    source: { file: "x" },
  });
  const pair = (a: number, b: number) => ({ chosen: side(a), rejected: side(b), source: { file: "x" } });
  const data = {
    config: parse({ data: "a,b", dataWeights: "3,1" }),
    tokenizer: tinyTokenizer(),
    pairs: [pair(1, 2), pair(4, 5), pair(2, 5)],
    evalPairs: [],
    parts: [{ count: 2, weight: 3 }, { count: 1, weight: 1 }],
  } as unknown as RunData;
  // The second pair's sides become one another.
  const shorter = changeRunData(data, { maxLength: 5 });
  assert.deepEqual(shorter.parts, [{ count: 1, weight: 3 }, { count: 1, weight: 1 }]);
  assert.equal(shorter.pairs.length, 2);
  assert.throws(() => changeRunData(data, { maxLength: 4 }), /expected items in every file/);
});

Deno.test("train draws from two files by --data-weights, the same way every time", async () => {
  const folder = temporaryFolder();
  const model = join(folder, "model");
  await writeCheckpoint(model);
  const few = await writeLines(join(folder, "few.jsonl"), DIGIT_PAIRS.slice(0, 2));
  const many = await writeLines(join(folder, "many.jsonl"), DIGIT_PAIRS.slice(2));
  const flags = ["--model", model, "--data", `${few},${many}`, "--max-steps", "4", "--batch-size", "2"];
  const run = async (output: string, more: string[]) => {
    const out = await succeed("train", [
      ...flags,
      ...more,
      "--log-every",
      "1",
      "--output",
      join(folder, output),
    ]);
    const metrics = await Deno.readTextFile(join(folder, output, "metrics.jsonl"));
    return { out, losses: metrics.trim().split("\n").map((line) => JSON.parse(line).loss) };
  };
  const weighted = await run("weighted", ["--data-weights", "3,1"]);
  assert.match(weighted.out, /few\.jsonl: 6 of the 8 items of an epoch \(weight 3\), each 3\.00 times/);
  assert.match(weighted.out, /many\.jsonl: 2 of the 8 items of an epoch \(weight 1\), each 0\.33 times/);
  const config = join(folder, "weighted", "config.json");
  const again = await succeed("train", ["--config", config, "--output", join(folder, "again")]);
  assert.match(again, /few\.jsonl: 6 of the 8/);
  const metrics = await Deno.readTextFile(join(folder, "again", "metrics.jsonl"));
  assert.deepEqual(metrics.trim().split("\n").map((line) => JSON.parse(line).loss), weighted.losses);
  assert.notDeepEqual((await run("plain", [])).losses, weighted.losses);

  const labelled = DIGIT_PAIRS.map(({ prompt, chosen }) => ({ prompt, completion: chosen, label: true }));
  const good = await writeLines(join(folder, "good.jsonl"), labelled);
  const bad = await writeLines(
    join(folder, "bad.jsonl"),
    DIGIT_PAIRS.slice(0, 4).map(({ prompt, rejected }) => ({ prompt, completion: rejected, label: false })),
  );
  const kto = ["--model", model, "--loss", "kto", "--max-steps", "2", "--batch-size", "4"];
  const lossesOf = async (weights: string) => {
    const output = join(folder, `kto-${weights.replace(",", "-")}`);
    const more = [
      "--data",
      `${good},${bad}`,
      "--data-weights",
      weights,
      "--log-every",
      "1",
      "--output",
      output,
    ];
    const out = await succeed("train", [...kto, ...more]);
    const lines = (await Deno.readTextFile(join(output, "metrics.jsonl"))).trim().split("\n");
    return { out, losses: lines.map((line) => JSON.parse(line)["loss"]) };
  };
  const even = await lossesOf("1,1");
  assert.match(even.out, /bad\.jsonl: 6 of the 12 items of an epoch/);
  assert.notDeepEqual((await lossesOf("5,1")).losses, even.losses);
  const { code, error } = await runTask("train", [...kto, "--data", good, "--output", join(folder, "no")]);
  assert.equal(code, 1);
  assert.match(
    error,
    /^error: Cannot use .*good\.jsonl: expected answers of both labels, found 8 that are all desirable$/m,
  );
  const uneven = await runTask("train", [...flags, "--data-weights", "1", "--output", join(folder, "no")]);
  assert.match(
    uneven.error,
    /^error: Cannot use --data-weights: expected a number above 0 for each of the 2 files/m,
  );
});
