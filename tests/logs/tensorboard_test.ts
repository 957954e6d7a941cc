import assert from "node:assert/strict";
import { basename, join } from "node:path";
import { InputError } from "../../train/errors.ts";
import { encodeEvent, stepOf } from "../../train/logs/event.ts";
import { openTensorBoard } from "../../train/logs/tensorboard.ts";
import { CAN_MOUNT, mountDisk } from "../faults/disk.ts";
import { temporaryFolder } from "../tiny_model.ts";
import { eventFiles, readEventFile, readScalars } from "./read_events.ts";

const SECONDS = 1_764_000_000;
const now = () => SECONDS * 1000 + 250;

Deno.test("a record is one event of scalars in f32, named as transformers names them, behind the file's version", () => {
  const folder = join(temporaryFolder(), "tensorboard");
  using sink = openTensorBoard(folder, { isByPhase: false, now });
  const record = { phase: "dpo", global_step: 300, loss: 0.1, "rewards/chosen": -2.5, eval_loss: 0.7 };
  sink.append(record);
  // Read while the sink is open: nothing waits in the process.
  const [file, ...others] = eventFiles(folder);
  assert.deepEqual([basename(file), others], [`events.out.tfevents.${SECONDS}.keel`, []]);
  assert.deepEqual(readEventFile(file), [
    { wall_time: SECONDS + 0.25, step: 0, file_version: "brain.Event:2" },
    {
      ...{ wall_time: SECONDS + 0.25, step: 300 },
      summary: {
        value: [
          { tag: "train/loss", simple_value: Math.fround(0.1) },
          { tag: "train/rewards/chosen", simple_value: -2.5 },
          { tag: "eval/loss", simple_value: Math.fround(0.7) },
        ],
      },
    },
  ]);
});

Deno.test("steps of every size, and tags of every length, come back", () => {
  const steps = [1, 127, 128, 16_383, 16_384, 2 ** 31, 2 ** 32 + 5, Number.MAX_SAFE_INTEGER];
  for (const step of steps) {
    assert.equal(stepOf(encodeEvent({ wallTime: 1.5, step, scalars: { a: 1 } })), step);
  }
  const folder = temporaryFolder();
  using sink = openTensorBoard(folder, { isByPhase: false });
  const name = "é".repeat(200);
  for (const global_step of steps) sink.append({ global_step, [name]: global_step });
  assert.deepEqual(
    readScalars(folder).get(`train/${name}`),
    steps.map((step) => [step, Math.fround(step)]),
  );
});

Deno.test("phases that count their steps anew are runs of their own", () => {
  const folder = temporaryFolder();
  using sink = openTensorBoard(folder, { isByPhase: true });
  for (const phase of ["sft", "dpo+spo", "../x"]) sink.append({ phase, global_step: 1, loss: 2 });
  assert.deepEqual([...Deno.readDirSync(folder)].map(({ name }) => name).sort(), ["___x", "dpo+spo", "sft"]);
  assert.deepEqual([...readScalars(join(folder, "dpo+spo"))], [["train/loss", [[1, 2]]]]);
});

Deno.test("a run that goes on takes back what it does again, in a file that sorts after, whatever the clock says", () => {
  const folder = temporaryFolder();
  const log = (steps: readonly number[], options: { resumedAfter?: number; now: () => number }) => {
    using sink = openTensorBoard(folder, { isByPhase: false, ...options });
    for (const step of steps) sink.append({ global_step: step, loss: step / 2 });
  };
  log([3, 6, 8], { now });
  // What a process that was killed while it wrote leaves.
  const [first] = eventFiles(folder);
  const whole = Deno.readFileSync(first);
  Deno.writeFileSync(first, whole.subarray(0, 11), { append: true });
  log([9, 12], { resumedAfter: 6, now: () => now() - 5000 });
  const [kept, second] = eventFiles(folder).map(readEventFile);
  assert.deepEqual(kept.map(({ step }) => step), [0, 3, 6]);
  assert.deepEqual(second.map(({ step }) => step), [0, 7, 9, 12]);
  assert.deepEqual(second[1].session_log, { status: "START" });
  log([3], { resumedAfter: 0, now });
  assert.deepEqual(
    eventFiles(folder).map((path) => basename(path).split(".")[3]),
    [0, 1, 2].map((n) => `${SECONDS + n}`),
  );
  assert.deepEqual(readScalars(folder).get("train/loss"), [[3, 1.5]]);
  assert.deepEqual(eventFiles(folder).map((path) => readEventFile(path).length), [1, 1, 3]);
});

Deno.test("a place that cannot be written is named", () => {
  const folder = temporaryFolder();
  const file = join(folder, "file");
  Deno.writeTextFileSync(file, "");
  using sink = openTensorBoard(join(file, "tensorboard"), { isByPhase: false });
  assert.throws(() => sink.append({ global_step: 1 }), (error) => {
    assert.ok(error instanceof InputError, String(error));
    assert.match(error.message, /^Cannot write to .*file.tensorboard: expected a place to write, found /);
    return true;
  });
});

Deno.test({
  name: "a full disk ends the run with the file's name, and of the event that did not fit nothing stays",
  ignore: !CAN_MOUNT,
  fn() {
    using disk = mountDisk()!;
    using sink = openTensorBoard(disk.folder, { isByPhase: false, now });
    sink.append({ global_step: 1, loss: 1 });
    const [file] = eventFiles(disk.folder);
    disk.fill();
    const more = () => {
      for (let step = 2; step < 4096; step++) sink.append({ global_step: step, loss: 1 });
    };
    assert.throws(more, (error) => {
      assert.ok(
        error instanceof InputError && error.message.startsWith(`Cannot write to ${file}: `),
        `${error}`,
      );
      return true;
    });
    const steps = readEventFile(file).map(({ step }) => Number(step));
    assert.deepEqual(steps, steps.map((_, index) => index), "whole events, in order");
  },
});
