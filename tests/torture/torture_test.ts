import assert from "node:assert/strict";
import { ensureAdapter } from "../../train/software_driver.ts";
import { temporaryFolder } from "../tiny_model.ts";
import { killRuns } from "./kills.ts";

Deno.test("a run that is killed five times ends as one that was left alone", async () => {
  await ensureAdapter();
  const tally = await killRuns({ kills: 5, seed: 3, steps: 12, folder: temporaryFolder() });
  assert.equal(tally.kills, 5);
  assert.ok(tally.completed >= 1 && tally.resumes >= 1, JSON.stringify(tally));
});
