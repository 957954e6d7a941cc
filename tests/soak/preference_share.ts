/**
 * What the preference part of a step costs, loss by loss: everything but the model, its head's log-probs and the
 * optimizer, as `deno task profile` has it, in one table. Prints Markdown and fails when a share reaches the goal.
 *
 *     deno run -R -W -E -S --allow-ffi --allow-run tests/soak/preference_share.ts
 *
 * `--shape` and `--steps` are those of `deno task profile`.
 * @module
 */
import { parseArgs } from "node:util";
import { openGpu } from "../../engine/gpu.ts";
import { conditionLines, formatNumber } from "../../train/bench/format.ts";
import { parseCommandLine } from "../../train/command_line.ts";
import { PREFERENCE_GOAL, type ProfileReport } from "../../train/profile.ts";
import { measureCeilings } from "../../train/profile/ceilings.ts";
import { parseProfile, profileShape } from "../../train/profile/target.ts";
import { ensureAdapter } from "../../train/software_driver.ts";
import { formatMarkdownTable } from "../../train/table.ts";

/** One loss of each kind, and what may come around one. */
const CASES = [
  "--loss dpo",
  "--loss aot",
  "--loss simpo",
  "--loss orpo",
  "--loss mpo",
  "--loss kto",
  "--loss dpo --ches",
  "--loss dpo --spo.solver penalty --spo.penalty quadratic --spo.v-star 0",
  "--loss dpo --spo.solver penalty --spo.lower-level-mean token --spo.v-star 0",
  "--loss dpo --spo.solver unrolled --spo.inner-learning-rate 1e-4",
  "--loss dpo --precompute-reference=false --sync-ref-model --ref-model-sync-steps 1",
];

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      shape: { type: "string", default: "bench" },
      steps: { type: "string", default: "2" },
    },
  });
  await ensureAdapter();
  using gpu = await openGpu();
  const ceilings = await measureCeilings(gpu, { samples: 1, sampleMs: 100 });
  const reports: ProfileReport[] = [];
  for (const flags of CASES) {
    const line = parseCommandLine([
      "profile",
      ...["--shape", values.shape, "--steps", values.steps],
      ...flags.split(" "),
    ]);
    if (line.help) throw new Error("Cannot measure: expected flags, found a request for help");
    reports.push(await profileShape(gpu, parseProfile(line), { ceilings }));
    console.error(flags);
  }
  console.log(conditionLines(reports[0].conditions, "- "));
  const rows = reports.map(({ kernelMs, parts: { preference: { ms, share, kernels } } }, index) => [
    ...[CASES[index], formatNumber(kernelMs), formatNumber(ms), formatNumber(100 * share)],
    kernels.join(", "),
  ]);
  const headers = [
    "flags",
    "all kernels, ms/step",
    "preference part, ms/step",
    "%",
    "its kernels, dearest first",
  ];
  console.log(formatMarkdownTable(headers, rows));
  const dear = reports.filter(({ parts: { preference } }) => preference.share >= PREFERENCE_GOAL);
  for (const { title } of dear) console.error(`Not under ${100 * PREFERENCE_GOAL} %: ${title}`);
  if (dear.length > 0) Deno.exit(1);
}
