/**
 * Kills a short run 100 times, at any moment and while it is saved, and fails when one of its ends differs from that of
 * a run that was left alone: `deno task torture [--kills N] [--seed S] [--steps N]`.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { ensureAdapter } from "../../train/software_driver.ts";
import { killRuns } from "./kills.ts";

const { values } = parseArgs({
  options: {
    kills: { type: "string", default: "100" },
    seed: { type: "string", default: "1" },
    steps: { type: "string", default: "40" },
  },
});
// Once, here: a process that is killed while it unpacks a driver is no test of checkpoints.
await ensureAdapter();
const folder = await Deno.makeTempDir({ prefix: "keel-torture-" });
try {
  const tally = await killRuns({
    ...{ kills: Number(values.kills), seed: Number(values.seed), steps: Number(values.steps), folder },
    log: (line) => console.error(line),
  });
  console.log(
    `${tally.kills} kills, ${tally.duringSave} of them while a checkpoint was being written; ${tally.resumes} resumes, ` +
      `${tally.fromCheckpoint} of them from a checkpoint; ${tally.damagedMet} damaged checkpoints met ` +
      `(${tally.damagedOnPurpose} damaged on purpose); ${tally.completed} runs completed, each equal bit for bit to the ` +
      `one that was left alone; ${(tally.elapsedMs / 1000).toFixed(0)} s.`,
  );
} finally {
  await Deno.remove(folder, { recursive: true });
}
