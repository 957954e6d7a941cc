import assert from "node:assert/strict";
import { cpSync } from "node:fs";
import { join } from "node:path";
import { findCheckpoint } from "../../train/checkpoints/find.ts";
import { restoreCheckpoint } from "../../train/checkpoints/read.ts";
import { writeCheckpoint } from "../../train/checkpoints/write.ts";
import { CheckpointError } from "../../train/errors.ts";
import { gpuTest } from "../gpu.ts";
import { temporaryFolder } from "../tiny_model.ts";
import {
  assertSame,
  contextOf,
  type Fault,
  faultyFileSystem,
  Killed,
  namesIn,
  type SmallRun,
  smallRun,
} from "./small_run.ts";

/** Steps saved before the one that fails: the oldest is pruned in it. */
const EARLIER = [2, 4];

/** Where to save without waiting for the disk. */
const quickly = (folder: string) => contextOf(folder, faultyFileSystem(Infinity, "full"));

type Contents = Awaited<ReturnType<SmallRun["contents"]>>;

/** Two checkpoints to begin with, the newer one damaged where it is the one to be written again; and all contents. */
async function makeTemplate(run: SmallRun, step: number): Promise<[string, Map<number, Contents>]> {
  const folder = temporaryFolder();
  const contents = new Map<number, Contents>();
  for (const earlier of EARLIER) {
    run.goTo(earlier);
    contents.set(earlier, await run.contents());
    await writeCheckpoint(run.state(), quickly(folder));
  }
  run.goTo(step);
  contents.set(step, await run.contents());
  if (EARLIER.includes(step)) {
    await Deno.truncate(join(folder, `checkpoints/step-00000${step}/state.json`), 3);
  }
  return [folder, contents];
}

/** A save of `step` where every operation fails in turn. */
function failsEverywhere(name: string, options: { fault: Fault; step: number; allowed: number[] }): void {
  const { fault, step, allowed } = options;
  gpuTest(name, async (gpu) => {
    using run = smallRun(gpu);
    const [template, contents] = await makeTemplate(run, step);
    const seen = new Set<number>();
    let at = 0;
    for (;; at++) {
      const folder = temporaryFolder();
      cpSync(template, folder, { recursive: true });
      run.goTo(step);
      const { fileSystem, operations } = faultyFileSystem(at, fault);
      const error = await writeCheckpoint(run.state(), contextOf(folder, { fileSystem })).then(
        () => undefined,
        (thrown) => thrown,
      );
      const where = operations[at];
      if (where === undefined) {
        assert.equal(error, undefined);
        break;
      }
      if (fault === "full") {
        assert.ok(error instanceof CheckpointError, `${where}: ${error}`);
        assert.match(error.message, /^Cannot (write|read) .*checkpoints.*No space left/, where);
        assert.ok(error.message.includes(folder), `${where}: ${error.message}`);
      } else assert.ok(error instanceof Killed, where);
      const found = (await findCheckpoint(folder))!;
      assert.ok(allowed.includes(found.step), `${where}: found ${found.step}`);
      seen.add(found.step);
      run.goTo(1);
      await restoreCheckpoint(found, run.state());
      assertSame(await run.contents(), contents.get(found.step)!);
      // The next save, as of the process that goes on.
      run.goTo(8);
      await writeCheckpoint(run.state(), quickly(folder));
      const names = namesIn(folder);
      assert.ok(names.length === 2 && names.every((one) => /^step-\d{6}$/.test(one)), `${where}: ${names}`);
      assert.equal((await findCheckpoint(folder))!.step, 8);
    }
    // Both sides of the rename were met, and all that a save is made of.
    assert.deepEqual([...seen].sort(), allowed);
    assert.ok(at >= 40, `${at} operations`);
  });
}

failsEverywhere("the disk is full at each operation of a save: an error, and the checkpoint before", {
  ...{ fault: "full", step: 6, allowed: [4, 6] },
});
failsEverywhere("the process dies at each operation of a save: the checkpoint before or the new one", {
  ...{ fault: "killed", step: 6, allowed: [4, 6] },
});
failsEverywhere("a damaged checkpoint is replaced, and the disk is full at each operation", {
  ...{ fault: "full", step: 4, allowed: [2, 4] },
});
failsEverywhere("a damaged checkpoint is replaced, and the process dies at each operation", {
  ...{ fault: "killed", step: 4, allowed: [2, 4] },
});

gpuTest(
  "files that are removed or swapped under way are told, and the checkpoint before stays",
  async (gpu) => {
    const partial = (folder: string) => join(folder, `checkpoints/.step-000006.${Deno.pid}.partial`);
    const cases: [string, (model: string, folder: string) => Promise<void>, RegExp][] = [
      [
        "the folder",
        (_, folder) => Deno.remove(partial(folder), { recursive: true }),
        /Cannot write .*partial/,
      ],
      ["all checkpoints' folder is a file", async (_, folder) => {
        await Deno.rename(join(folder, "checkpoints"), join(folder, "away"));
        await Deno.writeTextFile(join(folder, "checkpoints"), "");
      }, /Cannot write .*checkpoints/],
      ["the model cannot be written", () => {
        const error = Object.assign(new Error("Read-only file system (os error 30)"), { code: "EROFS" });
        return Promise.reject(error);
      }, /Cannot write .*model: Read-only/],
    ];
    for (const [name, spoil, message] of cases) {
      const folder = temporaryFolder();
      using run = smallRun(gpu);
      run.goTo(4);
      await writeCheckpoint(run.state(), contextOf(folder));
      run.goTo(6);
      const saveModel = (model: string) => spoil(model, folder);
      await assert.rejects(writeCheckpoint(run.state(), contextOf(folder, { saveModel })), (error: Error) => {
        assert.ok(error instanceof CheckpointError, `${name}: ${error}`);
        assert.match(error.message, message, name);
        return true;
      });
      const away = join(folder, "away");
      if (name.startsWith("all")) {
        await Deno.remove(join(folder, "checkpoints"));
        await Deno.rename(away, join(folder, "checkpoints"));
      }
      assert.equal((await findCheckpoint(folder))!.step, 4, name);
    }
  },
);

gpuTest("a run's folder that is gone is not made anew", async (gpu) => {
  using run = smallRun(gpu);
  const folder = join(temporaryFolder(), "gone");
  await assert.rejects(writeCheckpoint(run.state(), contextOf(folder)), /Cannot write .*gone.checkpoints/);
});
