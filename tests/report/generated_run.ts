/**
 * Runs as training leaves them, computed from formulas: the same bytes on every machine.
 *
 * @module
 */
import { join } from "node:path";

/** What a stranger might put into a prompt. */
export const HOSTILE =
  `<script>alert("x")</script>&"'<img src=https://example.org/x.png onerror=alert(1)>\u0000\u202e`;

/** A run folder of two phases; `shift` tells one run from another. */
export async function writeGeneratedRun(folder: string, { shift = 0, phase = "dpo" } = {}): Promise<void> {
  await Deno.mkdir(folder, { recursive: true });
  const sft = Array.from({ length: 40 }, (_, index) => ({
    phase: "sft",
    ...{ global_step: (index + 1) * 10, epoch: (index + 1) / 40, loss: 2.6 * Math.exp(-index / 12) },
    ...{ grad_norm: 1 + Math.sin(index) / 2, learning_rate: 3e-3 * (1 - index / 40) },
    ...{ num_tokens: (index + 1) * 4000, tokens_per_second: 15_000 + 500 * Math.cos(index) },
  }));
  await Deno.writeTextFile(
    join(folder, "metrics.jsonl"),
    [...sft, ...preferenceRecords(shift, phase)].map((record) => `${JSON.stringify(record)}\n`).join(""),
  );
  const config = { keelVersion: "0.1.0", loss: phase, spo: { lambda: shift }, note: HOSTILE };
  await Deno.writeTextFile(join(folder, "config.json"), JSON.stringify(config));
  const evaluation = {
    logpsChosen: -1,
    logpsRejected: -9,
    chosenDelta: -0.5,
    rejectedDelta: -4,
    rewardMargin: 0.35,
  };
  const results = [{ phase, isReference: false, evaluation: { ...evaluation, rewardAccuracy: 0.9 } }];
  await Deno.writeTextFile(join(folder, "results.json"), JSON.stringify({ adapter: "generated", results }));
  const samples = ["before", "after"].map((at) => ({
    ...{ phase: at, prompt: HOSTILE, chosen: "58,07$", completion: `${HOSTILE} ${at}` },
  }));
  await Deno.writeTextFile(
    join(folder, "samples.jsonl"),
    samples.map((line) => `${JSON.stringify(line)}\n`).join(""),
  );
}

function preferenceRecords(shift: number, phase: string): Record<string, unknown>[] {
  return Array.from({ length: 30 }, (_, index) => {
    const [chosen, rejected] = [-index / 8 * (1 - shift), -index / 2];
    return {
      phase,
      ...{ global_step: (index + 1) * 5, epoch: index / 10, loss: 0.69 - index / 60 + shift / 20 },
      ...{ "rewards/chosen": chosen / 10, "rewards/rejected": rejected / 10 },
      ...{ "rewards/margins": (chosen - rejected) / 10, "rewards/accuracies": 0.5 + index / 70 },
      ...{ "logps/chosen": chosen - 1, "logps/rejected": rejected - 20 },
      ...{ "displacement/chosen_delta": chosen, "displacement/rejected_delta": rejected },
      ...{ "displacement/fraction": 0.5 + index / 80, "spo/gap": index / 100, "spo/lambda": shift },
      ...{ grad_norm: 3 + Math.cos(index), learning_rate: 3e-4, "invented/metric": index * index },
      ...{ num_tokens: index * 1344, tokens_per_second: 12_000 + 300 * Math.sin(index) },
      gpu_memory_bytes: 2 ** 26 + shift * 2 ** 24,
    };
  });
}
