import assert from "node:assert/strict";
import { parseRunConfig } from "../../train/config.ts";
import { readLabelled } from "../../train/data/labelled_records.ts";
import { temporaryFolder } from "../tiny_model.ts";

const parse = (raw: Record<string, unknown>) => parseRunConfig(raw, { describe: (path) => path.join(".") });

Deno.test("options and settings that a loss on labelled answers cannot honour are refused by name", () => {
  assert.equal(parse({ loss: "kto", undesirableWeight: 1.5 }).undesirableWeight, 1.5);
  const refused: [Record<string, unknown>, RegExp][] = [
    [{ loss: "kto", batchSize: 1 }, /batchSize: expected at least 2 with kto/],
    [{ loss: "kto", gradientAccumulationSteps: 2 }, /gradientAccumulationSteps: expected 1 with kto/],
    [{ loss: "kto", spo: { solver: "penalty" } }, /spo: expected a pairwise loss, found kto/],
    [{ loss: "kto", promptSharing: true }, /promptSharing: expected a pairwise loss, found kto/],
    [{ loss: "kto", labelSmoothing: 0.1 }, /labelSmoothing/],
    [{ loss: "kto", lossWeights: "1" }, /lossWeights/],
    [{ loss: "dpo,kto" }, /loss: expected kto alone/],
    [{ loss: "dpo", desirableWeight: 1 }, /desirableWeight: expected kto or apo_zero_unpaired/],
    [{ syncRefModel: true }, /syncRefModel: expected precomputeReference false/],
    [{ syncRefModel: true, precomputeReference: false, lora: { rank: 4 } }, /syncRefModel: expected no LoRA/],
    [
      { syncRefModel: true, precomputeReference: false, loss: "simpo" },
      /syncRefModel: expected a loss that reads/,
    ],
    [{ refModelSyncSteps: 3 }, /refModelSyncSteps: expected syncRefModel/],
    [{ loss: "kto", precomputeReference: true }, /precomputeReference: expected a pairwise loss/],
    [{ loss: "sft", desirableWeight: 1 }, /desirableWeight: expected kto or apo_zero_unpaired/],
  ];
  for (const [raw, message] of refused) assert.throws(() => parse(raw), message, JSON.stringify(raw));
  // Without a KL estimate answers do not depend on each other.
  assert.equal(
    parse({ loss: "apo_zero_unpaired", gradientAccumulationSteps: 8 }).gradientAccumulationSteps,
    8,
  );
});

Deno.test("labelled answers are read as they are, preferences as two answers; a mix is refused", async () => {
  const path = `${temporaryFolder()}/data.jsonl`;
  const write = (...rows: object[]) =>
    Deno.writeTextFileSync(path, rows.map((row) => JSON.stringify(row)).join("\n"));
  const labelled = { prompt: "1+1=", completion: "3", label: false };
  const pair = { prompt: "1+1=", chosen: "2", rejected: "3" };
  write(labelled, { ...labelled, completion: "" });
  const { records, skipped } = await readLabelled(path);
  assert.deepEqual(records.map(({ completion, desirable }) => [completion, desirable]), [["3", false]]);
  assert.deepEqual(skipped, { emptyCompletion: 1 });
  write(pair);
  assert.deepEqual((await readLabelled(path)).records.map(({ desirable }) => desirable), [true, false]);
  write(labelled, pair);
  await assert.rejects(
    readLabelled(path),
    /data.jsonl:2: expected {prompt, completion, label}, found a preference/,
  );
  write({ prompt: "1+1=", completion: "3" });
  await assert.rejects(readLabelled(path), /which has no label/);
});
