/**
 * A merged model appears whole: whichever operation fails, its folder is not there or is the earlier one.
 *
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { saveAdapter } from "../../train/adapters/adapter_files.ts";
import { addLora } from "../../train/adapters/lora.ts";
import { mergeAdapter, type MergeOptions } from "../../train/adapters/merge.ts";
import { InputError } from "../../train/errors.ts";
import { checkModel, saveModel } from "../../train/models/model_files.ts";
import { faultyFileSystem } from "../checkpoints/small_run.ts";
import { gpuTest } from "../gpu.ts";
import { temporaryFolder, tinyModel, tinyTokenizer } from "../tiny_model.ts";
import { contentsBelow } from "./disk.ts";

/** Merges the same adapter, in one file of f32 or in shards of bf16. */
type Merge = (
  options: Pick<MergeOptions, "output" | "fileSystem"> & { sharded?: boolean },
) => Promise<unknown>;

function mergeTest(name: string, run: (merge: Merge) => Promise<void>): void {
  gpuTest(name, async (gpu) => {
    const [base, adapter, tokenizer] = [temporaryFolder(), temporaryFolder(), tinyTokenizer()];
    const whole = tinyModel(gpu, { trainable: false });
    await saveModel(base, whole, { tokenizer });
    using model = addLora(whole, { rank: 2, base });
    await saveAdapter(adapter, model);
    await run(({ sharded, ...options }) =>
      mergeAdapter({ adapter, ...options, ...(sharded && { dtype: "bf16", maxShardBytes: 2000 }) })
    );
  });
}

for (const fault of ["full", "killed"] as const) {
  for (const before of ["nothing", "an earlier model"] as const) {
    mergeTest(`each operation of a merge fails, as ${fault}, where there was ${before}`, async (merge) => {
      const template = join(temporaryFolder(), "merged");
      await merge({ output: template });
      const old = contentsBelow(template);
      for (let at = 0;; at++) {
        const folder = temporaryFolder();
        const output = join(folder, "merged");
        if (before === "an earlier model") await merge({ output });
        const { fileSystem, operations } = faultyFileSystem(at, fault);
        const error: unknown = await merge({ output, fileSystem, sharded: true })
          .then(() => undefined, (thrown) => thrown);
        if (operations[at] === undefined) {
          assert.ok(error === undefined && at > 20, `${at}`);
          break;
        }
        const names = [...Deno.readDirSync(folder)].map(({ name }) => name);
        const isThere = names.includes("merged");
        const contents = isThere ? contentsBelow(output) : {};
        const isNew = "model.safetensors.index.json" in contents;
        // It gets its name last; only flushing its parent and removing the earlier one come after.
        const isRenamed = operations.slice(0, at).some((one) => /^rename .*merged\.\d+\.partial$/.test(one));
        assert.equal(isNew, isRenamed, operations[at]);
        if (isNew) await checkModel(output);
        else if (isThere) assert.deepEqual(contents, old, operations[at]);
        if (fault === "killed") continue;
        assert.equal(isThere, isNew || before === "an earlier model", operations[at]);
        assert.ok(
          error instanceof InputError && error.message.includes(output),
          `${operations[at]}: ${error}`,
        );
        if (!isNew) assert.deepEqual(names, isThere ? ["merged"] : [], operations[at]);
      }
    });
  }
}

mergeTest("a merge takes the place of an earlier model, and of nothing else", async (merge) => {
  const output = join(temporaryFolder(), "merged");
  await merge({ output, sharded: true });
  // A slash at the end is no folder of its own; shards of the earlier model go.
  await merge({ output: `${output}/` });
  assert.ok("model.safetensors" in contentsBelow(output));
  assert.ok(!("model.safetensors.index.json" in contentsBelow(output)));
  const link = join(temporaryFolder(), "link");
  await Deno.symlink(output, link);
  const linked = contentsBelow(output);
  await merge({ output: link, sharded: true });
  assert.ok(!(await Deno.lstat(link)).isSymlink, "the link was replaced");
  await checkModel(link);
  assert.deepEqual(contentsBelow(output), linked, "and what it led to stays");
  await Deno.writeTextFile(join(output, "notes.txt"), "mine");
  const before = contentsBelow(output);
  await assert.rejects(merge({ output }), /expected nothing in it but an earlier model, found notes\.txt$/);
  assert.deepEqual(contentsBelow(output), before);
});
