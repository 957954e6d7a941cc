/**
 * Two processes on one folder: the second is refused, and the folder is free as soon as the first is gone.
 *
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { lockFolder, refuseLocked } from "../../train/folder_lock.ts";
import { DIGIT_PAIRS, writeCheckpoint, writeLines } from "../story/user.ts";
import { temporaryFolder } from "../tiny_model.ts";
import { keel, whileKeelRuns } from "./child.ts";

/** Progress of a training. */
const SHOWN = /dpo {2}\d+\/200000/;

/** One line, before any long work. */
async function refused(args: readonly string[], folder: string): Promise<void> {
  const { code, text } = await keel(args);
  assert.equal(code, 1, text);
  assert.equal(
    text,
    `error: Cannot write to ${folder}: expected no other process in it, found one that is at work\n`,
  );
}

Deno.test("a run's folder has one process, until that is killed; a stopped one says how to go on", async () => {
  const folder = temporaryFolder();
  const [model, output] = [join(folder, "model"), join(folder, "the run")];
  await writeCheckpoint(model);
  const data = await writeLines(join(folder, "pairs.jsonl"), DIGIT_PAIRS);
  const train = [
    ...["train", "--model", model, "--data", data, "--output", output, "--batch-size", "4", "--tune", "off"],
    ...["--max-steps", "200000", "--log-every", "5", "--save-steps", "5"],
  ];
  const resume = ["train", "--resume", "--output", output];
  await whileKeelRuns(train, {
    after: SHOWN,
    async meanwhile() {
      await refused(resume, output);
      await refused([...train, "--overwrite"], output);
    },
  });
  const { code, text } = await keel(resume, { signals: { after: SHOWN, signals: ["SIGINT"] } });
  assert.equal(code, 130, text);
  const last = text.trimEnd().split("\n").at(-1)!;
  assert.match(last, /^Stopped /);
  assert.ok(last.endsWith(`; deno task train --resume --output '${output}' goes on`), last);
});

Deno.test("a study's folder has one process", async () => {
  const output = join(temporaryFolder(), "study");
  const study = ["study", "--quick", "--output", output];
  await whileKeelRuns(study, { after: /seed /, meanwhile: () => refused(study, output) });
});

Deno.test("a lock keeps a second one out, and a look at it changes nothing", async () => {
  const folder = temporaryFolder();
  await refuseLocked(folder);
  await refuseLocked(join(folder, "none"));
  assert.deepEqual([...Deno.readDirSync(folder)], []);
  {
    using _lock = await lockFolder(folder);
    for (const take of [lockFolder, refuseLocked]) {
      await assert.rejects(take(folder), { name: "InputError", message: /found one that is at work$/ });
    }
  }
  await refuseLocked(folder);
  (await lockFolder(folder))[Symbol.dispose]();
  await assert.rejects(lockFolder(join(folder, "none")), {
    name: "InputError",
    message: /^Cannot write to .*none.\.lock: expected a place to write, found no such folder$/,
  });
});
