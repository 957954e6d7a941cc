/**
 * What it takes to draw a run's figures, by its logged lines: `deno run -R -W tests/dashboard/draw_bench.ts`.
 *
 * @module
 */
import { join } from "node:path";
import { drawFolder } from "../../train/dashboard/live_run.ts";

const DRAWINGS = 5;

const folder = await Deno.makeTempDir({ prefix: "keel-draw-" });
try {
  console.log(
    "| lines | drawing, ms (median of 5) | HTML, KB |\n| ----: | ------------------------: | -------: |",
  );
  for (const lines of [30, 300, 3000, 30_000]) {
    const records = Array.from({ length: lines }, (_, index) => JSON.stringify(recordAt(index)));
    await Deno.writeTextFile(join(folder, "metrics.jsonl"), `${records.join("\n")}\n`);
    const times: number[] = [];
    let letters = 0;
    for (let drawing = 0; drawing < DRAWINGS; drawing++) {
      const start = performance.now();
      const parts = await drawFolder(folder);
      times.push(performance.now() - start);
      letters = [...parts.values()].join("").length;
    }
    const median = times.toSorted((a, b) => a - b)[Math.floor(DRAWINGS / 2)];
    console.log(`| ${lines} | ${median.toFixed(0)} | ${(letters / 1000).toFixed(0)} |`);
  }
} finally {
  await Deno.remove(folder, { recursive: true });
}

/** A preference run's line, of a loss that falls and trembles. */
function recordAt(index: number): Record<string, unknown> {
  const wave = Math.sin(index);
  return {
    ...{
      phase: "dpo",
      global_step: (index + 1) * 10,
      epoch: index / 100,
      loss: 0.7 - index / 1e5 + wave / 20,
    },
    ...{ "rewards/chosen": wave, "rewards/rejected": -wave, "rewards/margins": 2 * wave },
    ...{ "rewards/accuracies": 0.5 + wave / 4, "logps/chosen": -20 + wave, "logps/rejected": -30 - wave },
    ...{ "displacement/chosen_delta": wave, "displacement/rejected_delta": -wave },
    ...{ "displacement/fraction": 0.4, grad_norm: 2 + wave, learning_rate: 1e-4 },
    ...{ num_tokens: index * 100, tokens_per_second: 12_000 + wave, gpu_memory_bytes: 2 ** 26 },
  };
}
