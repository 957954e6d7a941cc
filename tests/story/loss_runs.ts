/**
 * Runs of two steps of every loss that `--loss` takes, alone and inside SPO, on a trained checkpoint and published
 * preferences.
 *
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { UNPAIRED_LOSSES } from "../../train/losses/unpaired.ts";
import { PAIR_LOSS_NAMES, resolvePairLoss } from "../../train/losses/weighted_sum.ts";
import type { Gpu } from "../../engine/gpu.ts";
import { gpuTest } from "../gpu.ts";
import { HAS_SHARED_DATA, SHARED_DATA } from "../shared_data.ts";
import { temporaryFolder } from "../tiny_model.ts";
import { type FinishedRun, trainInProcess } from "./in_process.ts";
import { copyCheckpoint, writeLines } from "./user.ts";

/** A run, and what else must be true of it. */
export interface LossRun {
  /** Counts through the files of data, so that each kind of run meets all of them. */
  readonly turn: number;
  readonly flags: readonly string[];
  readonly check?: (run: FinishedRun) => void;
}

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

/**
 * Registers a test of each run.
 *
 * @param runs What to train with.
 */
export function lossRunTests(runs: readonly LossRun[]): void {
  const files = Object.keys(FILES);
  for (const run of runs) {
    const data = files[run.turn % files.length];
    const name = `train ${run.flags.join(" ")} on real ${data.split(".")[0]}`;
    if (HAS_SHARED_DATA) gpuTest(name, (gpu) => trainTwoSteps(gpu, data, run));
    else Deno.test({ name: `${name} (needs shared data)`, ignore: true, fn() {} });
  }
}

async function trainTwoSteps(gpu: Gpu, data: string, { flags, check }: LossRun): Promise<void> {
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
  check?.(run);
}

/** Every loss of pairs alone. */
export const ALONE: readonly LossRun[] = PAIR_LOSS_NAMES.map((loss, index) => ({
  turn: 2 * index,
  flags: ["--loss", loss],
  check({ records }) {
    const expected = resolvePairLoss(loss).initialLoss;
    if (expected === undefined) return;
    assert.ok(Math.abs(Number(records[0].loss) - expected) < 1e-3 * (1 + expected));
    assert.notEqual(records[1].loss, records[0].loss, "stuck at the first loss");
  },
}));

/** Every loss of answers that are in no pair, and of texts. */
export const UNPAIRED: readonly LossRun[] = [...Object.keys(UNPAIRED_LOSSES), "sft"].map((loss, index) => ({
  turn: 2 * PAIR_LOSS_NAMES.length + index,
  flags: ["--loss", loss],
}));

const ADAPTER = ["--lora.rank", "2", "--lora.target-modules", "q_proj,v_proj"];

/** Every loss of pairs inside SPO. On an adapter, which has fewer weights to read back and save. */
export const INSIDE_SPO: readonly LossRun[] = PAIR_LOSS_NAMES.map((loss, index) => ({
  turn: 2 * index + 1,
  flags: ["--loss", loss, "--spo.solver", "penalty", ...ADAPTER],
  check({ records: [first] }) {
    assert.equal(first["spo/gap"], 0, "v* starts as G");
    assert.equal(first["spo/lambda"], 1);
  },
}));

const INNER = ["--spo.inner-learning-rate", "0.01"];

const hasInnerLoss = ({ records: [first] }: FinishedRun) => assert.ok(Number(first["spo/inner_loss"]) > 0);

/** Every way to solve SPO, on all weights, but for the loss. */
const SOLVERS: readonly Omit<LossRun, "turn">[] = [
  { flags: ["--spo.solver", "unrolled", ...INNER], check: hasInnerLoss },
  { flags: ["--spo.solver", "unrolled", "--spo.hypergradient", "hvp", ...INNER], check: hasInnerLoss },
  { flags: ["--spo.solver", "alternating", ...INNER], check: hasInnerLoss },
  {
    flags: ["--spo.solver", "penalty", "--spo.v-star", "2.5"],
    check({ records: [first] }) {
      assert.ok(Math.abs(Number(first["spo/gap"]) - (Number(first["spo/lower_level"]) - 2.5)) < 1e-5);
    },
  },
  {
    flags: [
      ...["--spo.solver", "penalty", "--spo.v-star", "initial"],
      ...["--spo.penalty", "hinge", "--spo.epsilon", "0.1"],
    ],
  },
  {
    flags: ["--spo.solver", "penalty", "--spo.v-star", "track", "--spo.track-steps", "2", ...INNER],
    check({ records: [first] }) {
      assert.ok(Number(first["spo/gap"]) > 0, "a tracked v* lies below G");
    },
  },
];

/** Every way to solve SPO with each of three losses: with a reference, without one, and with a likelihood in it. */
export const SOLVED: readonly LossRun[] = ["dpo", "simpo", "orpo"].flatMap((loss, row) =>
  SOLVERS.map(({ flags, check }, column) => ({
    turn: 2 * PAIR_LOSS_NAMES.length + UNPAIRED.length + SOLVERS.length * row + column,
    flags: ["--loss", loss, ...flags],
    check,
  }))
);
