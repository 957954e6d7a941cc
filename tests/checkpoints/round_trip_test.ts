import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { compareIdentity, findCheckpoint } from "../../train/checkpoints/find.ts";
import { removeLeftovers } from "../../train/checkpoints/prune.ts";
import { restoreCheckpoint } from "../../train/checkpoints/read.ts";
import type { RunState } from "../../train/checkpoints/run_state.ts";
import { writeCheckpoint } from "../../train/checkpoints/write.ts";
import { CheckpointError, InputError } from "../../train/errors.ts";
import { gpuTest } from "../gpu.ts";
import { temporaryFolder } from "../tiny_model.ts";
import { assertSame, contextOf, namesIn, smallRun } from "./small_run.ts";

gpuTest("a checkpoint brings a run back bit for bit", async (gpu) => {
  const folder = temporaryFolder();
  // More than one piece of 4 MiB, and a last piece of another size.
  using run = smallRun(gpu, 2 ** 20 + 2 ** 10);
  run.goTo(100);
  const expected = await run.contents();
  const path = await writeCheckpoint(run.state(), contextOf(folder));
  assert.equal(path, join(folder, "checkpoints", "step-000100"));
  run.goTo(7);
  const found = (await findCheckpoint(folder))!;
  assert.deepEqual([found.folder, found.step, found.metricsBytes], [path, 100, 1000]);
  assert.deepEqual(found.skipped, []);
  await restoreCheckpoint(found, run.state());
  assertSame(await run.contents(), expected);
});

gpuTest("a run without checkpoints has none", async (gpu) => {
  using _run = smallRun(gpu);
  assert.equal(await findCheckpoint(temporaryFolder()), undefined);
});

gpuTest(
  "a state of other names, shapes, types or numbers is refused before anything is written",
  async (gpu) => {
    const folder = temporaryFolder();
    using run = smallRun(gpu);
    run.goTo(2);
    await writeCheckpoint(run.state(), contextOf(folder));
    run.goTo(1);
    const expected = await run.contents();
    const found = (await findCheckpoint(folder))!;
    using larger = smallRun(gpu, 12);
    const { parts } = run.state();
    const change = (of: RunState["parts"]): RunState => ({ ...run.state(), parts: of });
    const [model] = parts.model.tensors;
    const withTensors = (tensors: RunState["parts"][string]["tensors"]) =>
      change({ ...parts, model: { ...parts.model, tensors } });
    const cases: [RunState, RegExp][] = [
      [withTensors([]), /model\/weight.*expected no such tensor in this run, found it/],
      [withTensors([model, { ...model, name: "other" }]), /"other": expected such a tensor, found none/],
      [withTensors(larger.state().parts.model.tensors), /expected F32 \[3, 4\], found F32 \[2, 4\]/],
      [change({ ...parts, spo: parts.model }), /spo in the run alone/],
      [
        change({ ...parts, model: { ...parts.model, numbers: () => ({ a: 1 }) } }),
        /numbers of model.*a in the run/,
      ],
    ];
    for (const [state, message] of cases) {
      await assert.rejects(restoreCheckpoint(found, state), (error: Error) => {
        assert.ok(error instanceof InputError);
        assert.match(error.message, message);
        return true;
      });
      assertSame(await run.contents(), expected);
    }
  },
);

gpuTest("numbers that are not finite are refused, and nothing is left", async (gpu) => {
  const folder = temporaryFolder();
  using run = smallRun(gpu);
  const state = run.state();
  const parts = { ...state.parts, spo: { tensors: [], numbers: () => ({ best: NaN }), restore() {} } };
  await assert.rejects(writeCheckpoint({ ...state, parts }, contextOf(folder)), /spo\.best.*finite.*NaN/);
  assert.deepEqual(namesIn(folder), []);
  await assert.rejects(writeCheckpoint(state, contextOf(folder, { score: NaN })), RangeError);
  await assert.rejects(writeCheckpoint(state, contextOf(folder, { keep: 0 })), RangeError);
});

gpuTest("the last ones and the best one are kept", async (gpu) => {
  const folder = temporaryFolder();
  using run = smallRun(gpu);
  const scores = [0.1, 0.9, 0.9, 0.2, 0.3, undefined];
  for (const [index, score] of scores.entries()) {
    run.goTo(index + 1);
    await writeCheckpoint(run.state(), contextOf(folder, { score }));
  }
  assert.deepEqual(namesIn(folder), ["step-000003", "step-000005", "step-000006"]);
  // A damaged one counts for nothing: of two, the older stays.
  await Deno.truncate(join(folder, "checkpoints/step-000006/state.safetensors"), 10);
  run.goTo(7);
  await writeCheckpoint(run.state(), contextOf(folder));
  assert.deepEqual(namesIn(folder), ["step-000003", "step-000005", "step-000007"]);
});

gpuTest("a run that went back past damaged checkpoints replaces them", async (gpu) => {
  const folder = temporaryFolder();
  using run = smallRun(gpu);
  for (const step of [2, 4, 6]) {
    run.goTo(step);
    await writeCheckpoint(run.state(), contextOf(folder, { keep: 3 }));
  }
  for (const step of [4, 6]) await flipBit(join(folder, `checkpoints/step-00000${step}/state.safetensors`));
  const found = (await findCheckpoint(folder))!;
  assert.equal(found.step, 2);
  assert.deepEqual(found.skipped.map(({ reason }) => /SHA-256/.test(reason)), [true, true]);
  run.goTo(4);
  await writeCheckpoint(run.state(), contextOf(folder, { keep: 1 }));
  assert.deepEqual(namesIn(folder), ["step-000004"]);
  assert.equal((await findCheckpoint(folder))!.step, 4);
});

gpuTest("a checkpoint that was put aside counts until the new one of its step is there", async (gpu) => {
  const folder = temporaryFolder();
  using run = smallRun(gpu);
  for (const step of [2, 4]) {
    run.goTo(step);
    await writeCheckpoint(run.state(), contextOf(folder));
  }
  const root = join(folder, "checkpoints");
  // As of a process that died between the two renames.
  await Deno.rename(join(root, "step-000004"), join(root, ".step-000004.replaced"));
  await removeLeftovers(folder);
  assert.equal((await findCheckpoint(folder))!.step, 4);
  await writeCheckpoint(run.state(), contextOf(folder));
  assert.deepEqual(namesIn(folder), ["step-000002", "step-000004"]);
});

Deno.test("files that a killed run had no time to name are removed, and no others", async () => {
  const folder = temporaryFolder();
  await Deno.mkdir(join(folder, "model"));
  const kept = ["config.json", "mine.partial", "model/model.safetensors"];
  const left = ["results.json.17.partial", "model/model.safetensors.17.partial"];
  for (const name of [...kept, ...left]) await Deno.writeTextFile(join(folder, name), "");
  await removeLeftovers(folder);
  for (const name of kept) assert.ok(existsSync(join(folder, name)), name);
  for (const name of left) assert.ok(!existsSync(join(folder, name)), name);
  await removeLeftovers(join(folder, "gone"));
});

gpuTest("a folder of checkpoints that is a link is left alone", async (gpu) => {
  const [folder, other] = [temporaryFolder(), temporaryFolder()];
  using run = smallRun(gpu);
  run.goTo(2);
  await writeCheckpoint(run.state(), contextOf(other));
  await Deno.mkdir(join(other, "checkpoints/.step-000004.7.partial"));
  await Deno.symlink(join(other, "checkpoints"), join(folder, "checkpoints"));
  const before = namesIn(other);
  await assert.rejects(writeCheckpoint(run.state(), contextOf(folder)), /a file or a link/);
  await assert.rejects(findCheckpoint(folder), CheckpointError);
  assert.deepEqual(namesIn(other), before);
});

Deno.test("what differs between two runs is named, with both values", () => {
  const saved = { seed: 0, loss: { beta: 0.1, names: ["a", { b: 1, c: 2 }] }, data: "ab" };
  const found = { folder: "run/checkpoints/step-000002", identity: saved };
  compareIdentity(found, {
    data: "ab",
    loss: { names: ["a", { c: 2, b: 1 }], beta: 0.1 },
    seed: 0,
    x: undefined,
  });
  assert.throws(
    () => compareIdentity(found, { seed: 1, loss: { beta: 0.1, names: ["a"] }, toString: 1 }),
    (error: Error) => {
      assert.ok(error instanceof InputError);
      for (
        const part of [
          "seed: expected 0, found 1",
          'loss.names: expected ["a",{"b":1,"c":2}], found ["a"]',
          'data: expected "ab", found nothing',
          "toString: expected nothing, found 1",
        ]
      ) assert.ok(error.message.includes(part), error.message);
      assert.ok(!error.message.includes("beta"));
      return true;
    },
  );
});

async function flipBit(path: string): Promise<void> {
  const bytes = await Deno.readFile(path);
  bytes[bytes.length - 1] ^= 1;
  await Deno.writeFile(path, bytes);
}
