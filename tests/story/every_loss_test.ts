/**
 * Every loss that `--loss` takes, alone and inside SPO, on a trained checkpoint and published preferences.
 *
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { UNPAIRED_LOSSES } from "../../train/losses/unpaired.ts";
import { PAIR_LOSS_NAMES, resolvePairLoss } from "../../train/losses/weighted_sum.ts";
import { gpuTest } from "../gpu.ts";
import { HAS_SHARED_DATA, SHARED_DATA } from "../shared_data.ts";
import { temporaryFolder } from "../tiny_model.ts";
import { type FinishedRun, trainInProcess } from "./in_process.ts";
import { copyCheckpoint, writeLines } from "./user.ts";

/** Instructions, transcripts and conversations: a few records of each, all of them short. */
const FILES: Readonly<Record<string, string>> = {
  "pairs.jsonl": "preference/rasbt.instruction-data-with-preference.json",
  "transcripts.jsonl": "hh-rlhf/helpful-base.split-train.first1854.jsonl",
  "conversations.jsonl": "preference/llamafactory.dpo_en_demo.json",
};
const RECORDS = 6;

let workspace: Promise<string> | undefined;

/** A folder with the checkpoint, to which a chat template is added, and the data. */
function prepare(): Promise<string> {
  workspace ??= (async () => {
    const folder = temporaryFolder();
    await copyCheckpoint(join(SHARED_DATA, "models/stories260K"), join(folder, "model"));
    for (const [name, source] of Object.entries(FILES)) {
      const text = await Deno.readTextFile(join(SHARED_DATA, source));
      const all = source.endsWith(".jsonl")
        ? text.trim().split("\n").map((line) => JSON.parse(line))
        : JSON.parse(text);
      const bySize = all.toSorted((a: unknown, b: unknown) =>
        JSON.stringify(a).length - JSON.stringify(b).length
      );
      await writeLines(join(folder, name), bySize.slice(0, RECORDS));
    }
    return folder;
  })();
  return workspace;
}

let count = 0;

/** Registers a test of one run of two steps; which data it is on takes turns. */
function realRun(
  flags: readonly string[],
  check: (run: FinishedRun) => void = () => {},
): void {
  const files = Object.keys(FILES);
  const data = files[count++ % files.length];
  const name = `train ${flags.join(" ")} on real ${data.split(".")[0]}`;
  if (!HAS_SHARED_DATA) return Deno.test({ name: `${name} (needs shared data)`, ignore: true, fn() {} });
  gpuTest(name, async (gpu) => {
    const folder = await prepare();
    const run = await trainInProcess(gpu, [
      ...["--model", join(folder, "model"), "--data", join(folder, data), "--output", join(folder, "run")],
      ...["--max-steps", "2", "--batch-size", "2", "--log-every", "1", "--eval-records", "2"],
      ...["--max-length", "128", "--overlong", "drop", "--learning-rate", "1e-3", ...flags],
    ]);
    assert.equal(run.records.length, 2);
    const numbers = run.records.map((record) => Object.entries(record).filter(([name]) => name !== "phase"));
    for (const [key, value] of numbers.flat()) assert.ok(Number.isFinite(value), `${key} ${value}`);
    for (const { grad_norm } of run.records) assert.ok(Number(grad_norm) > 0, `gradient ${grad_norm}`);
    // The model moved, away from what it was.
    const [before, after] = run.results.map(({ evaluation }) =>
      "loss" in evaluation ? evaluation.loss : evaluation.logpsChosen
    );
    assert.ok(Number.isFinite(after) && after !== before, `${before}, ${after}`);
    check(run);
  });
}

const ADAPTER = ["--lora.rank", "2", "--lora.target-modules", "q_proj,v_proj"];

const initialLoss = (loss: string) => resolvePairLoss(loss).initialLoss;

for (const loss of PAIR_LOSS_NAMES) {
  realRun(["--loss", loss], ({ records }) => {
    const expected = initialLoss(loss);
    if (expected === undefined) return;
    assert.ok(Math.abs(Number(records[0].loss) - expected) < 1e-3 * (1 + expected));
    assert.notEqual(records[1].loss, records[0].loss, "stuck at the first loss");
  });
  // On an adapter, which has fewer weights to read back and save. All weights inside SPO: below, and tests/train.
  realRun(["--loss", loss, "--spo.solver", "penalty", ...ADAPTER], ({ records }) => {
    assert.equal(records[0]["spo/gap"], 0, "v* starts as G");
    assert.equal(records[0]["spo/lambda"], 1);
  });
}
for (const loss of [...Object.keys(UNPAIRED_LOSSES), "sft"]) realRun(["--loss", loss]);

const INNER = ["--spo.inner-learning-rate", "0.01"];
for (const loss of ["dpo", "simpo", "orpo"]) {
  for (
    const solver of [
      ["--spo.solver", "unrolled", ...INNER],
      ["--spo.solver", "unrolled", "--spo.hypergradient", "hvp", ...INNER],
      ["--spo.solver", "alternating", ...INNER],
    ]
  ) {
    realRun(["--loss", loss, ...solver], ({ records }) => {
      assert.ok(Number(records[0]["spo/inner_loss"]) > 0);
    });
  }
  const penalty = ["--loss", loss, "--spo.solver", "penalty"];
  realRun([...penalty, "--spo.v-star", "2.5"], ({ records: [first] }) => {
    assert.ok(Math.abs(Number(first["spo/gap"]) - (Number(first["spo/lower_level"]) - 2.5)) < 1e-5);
  });
  realRun([...penalty, "--spo.v-star", "initial", "--spo.penalty", "hinge", "--spo.epsilon", "0.1"]);
  realRun(
    [...penalty, "--spo.v-star", "track", "--spo.track-steps", "2", ...INNER],
    ({ records: [first] }) => {
      assert.ok(Number(first["spo/gap"]) > 0, "a tracked v* lies below G");
    },
  );
}
