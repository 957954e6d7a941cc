/**
 * A disk that is full or read-only, and a folder that is none, under every file but a checkpoint's: one line that names the
 * file, earlier files as they were, nothing half-written.
 *
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import type { Gpu } from "../../engine/gpu.ts";
import { openPlanningGpu } from "../../engine/planning_gpu.ts";
import { saveAdapter } from "../../train/adapters/adapter_files.ts";
import { addLora } from "../../train/adapters/lora.ts";
import { mergeAdapter } from "../../train/adapters/merge.ts";
import { writeFileAtomically } from "../../train/atomic_file.ts";
import { writeFolderAtomically } from "../../train/atomic_folder.ts";
import { COMMON_CARD } from "../../train/bench/memory.ts";
import { InputError } from "../../train/errors.ts";
import { withDetails } from "../../train/evaluation/files.ts";
import { saveModel } from "../../train/models/model_files.ts";
import { cachedReferenceLogps } from "../../train/reference_cache.ts";
import { writeMarkdown } from "../../train/report/markdown.ts";
import { lineFigure } from "../../train/report/line_figure.ts";
import { writeReport } from "../../train/report/page.ts";
import { openMetrics, writeJson, writeRunConfig } from "../../train/run_folder.ts";
import { saveToRun, type Session } from "../../train/session.ts";
import { openCells } from "../../train/study/cells.ts";
import { tuneFromCache } from "../../train/tune_cache.ts";
import { faultyFileSystem } from "../checkpoints/small_run.ts";
import { gpuTest } from "../gpu.ts";
import { randomPairs, temporaryFolder, tinyModel, tinyTokenizer } from "../tiny_model.ts";
import { CAN_MOUNT, contentsBelow, mountDisk } from "./disk.ts";

/** Writes something into a folder, each time with other content. */
type Writer = (folder: string, version: number) => Promise<unknown>;

const LONG = "x".repeat(20_000);

const REPORT = (version: number) => ({
  title: "A run",
  sections: [{
    title: "Loss",
    paragraphs: [`${version}`, LONG],
    figures: [lineFigure({
      title: "Loss",
      x: { label: "step", unit: "steps" },
      y: { label: "loss", unit: "nats" },
      series: [{ name: "dpo", points: [{ x: 0, y: version }, { x: 1, y: 0.5 }] }],
    })],
  }],
});

/** All that is written besides checkpoints. */
function writers(gpu: Gpu): Record<string, Writer> {
  const tokenizer = tinyTokenizer();
  const session = (
    folder: string,
  ) => ({ gpu, folder, progress: () => ({ update() {}, finish() {} }) } as Partial<Session> as Session);
  /** With a LoRA or whole; other weights in each version. */
  const withModel = async (
    version: number,
    use: (model: ReturnType<typeof tinyModel>) => Promise<unknown>,
  ) => {
    using model = tinyModel(gpu, { trainable: false });
    model.parameters.write("model.norm.weight", new Float32Array(16).fill(version));
    await use(model);
  };
  return {
    "config.json": (folder, version) => writeRunConfig(folder, { version, text: LONG }),
    "results.json": (folder, version) => writeJson(join(folder, "results.json"), { version, text: LONG }),
    // deno-lint-ignore require-await -- a refusal is to be a rejection
    "metrics.jsonl": async (folder, version) => {
      using metrics = openMetrics(join(folder, "metrics.jsonl"));
      metrics.append({ version, text: LONG });
    },
    "a run's model": (folder, version) =>
      withModel(version, (model) => saveToRun(session(folder), model, { name: "model", tokenizer })),
    "a saved model": (folder, version) =>
      withModel(version, (model) => saveModel(join(folder, "saved"), model, { tokenizer })),
    "a saved adapter": (folder) => {
      using model = addLora(tinyModel(gpu, { trainable: false }), { rank: 4 });
      return saveAdapter(join(folder, "adapter"), model, { tokenizer });
    },
    "a merged model": async (folder, version) => {
      const [base, adapter] = [temporaryFolder(), temporaryFolder()];
      const whole = tinyModel(gpu, { trainable: false });
      whole.parameters.write("model.norm.weight", new Float32Array(16).fill(version));
      await saveModel(base, whole, { tokenizer });
      using model = addLora(whole, { rank: 2, base });
      await saveAdapter(adapter, model);
      await mergeAdapter({ adapter, output: join(folder, "merged") });
    },
    "details of an evaluation": (folder, version) =>
      withDetails(join(folder, "details.jsonl"), (write) => write({ version, text: LONG })),
    "report.html": (folder, version) => writeReport(join(folder, "report.html"), REPORT(version)),
    "a study's document": (folder, version) => writeMarkdown(join(folder, "study.md"), REPORT(version)),
    "a study's cell": (folder, version) =>
      openCells(folder, { adapter: "a" }).keep({ seed: 0 }, { version, text: LONG }),
    "the tuner's cache": (folder, version) =>
      tuneFromCache(
        openPlanningGpu({ ...COMMON_CARD, adapter: { ...COMMON_CARD.adapter, name: `${version} ${LONG}` } }),
        { folder: join(folder, "tuning"), candidates: {}, sampleMs: 0 },
      ),
    "cached reference log-probs": (folder, version) =>
      withModel(
        version,
        (model) => cachedReferenceLogps(model, randomPairs(40, version), { folder: join(folder, "logps") }),
      ),
  };
}

/** Writes twice, the second time where it cannot be. */
async function refused(name: string, write: Writer, folder: string): Promise<void> {
  const error: unknown = await write(folder, 2).then(() => undefined, (thrown) => thrown);
  assert.ok(error instanceof InputError, `${name}: ${error instanceof Error ? error.stack : error}`);
  assert.match(error.message, /^Cannot (write|read) .+$/, name);
  assert.ok(error.message.includes(folder), `${name}: ${error.message}`);
}

for (const situation of ["full", "read-only"] as const) {
  gpuTest(`a ${situation} disk under each file: one line, and what was there stays`, async (gpu) => {
    for (const [name, write] of Object.entries(writers(gpu))) {
      using disk = mountDisk()!;
      await write(disk.folder, 1);
      const before = contentsBelow(disk.folder);
      assert.ok(Object.keys(before).length > 0, name);
      if (situation === "full") disk.fill();
      else disk.makeReadOnly();
      await refused(name, write, disk.folder);
      assert.deepEqual(contentsBelow(disk.folder), before, name);
    }
  }, { ignore: !CAN_MOUNT });
}

gpuTest("a file where the folder of each file should be: one line that names it", async (gpu) => {
  for (const [name, write] of Object.entries(writers(gpu))) {
    const file = join(temporaryFolder(), "file");
    await Deno.writeTextFile(file, "mine");
    await refused(name, write, file);
    assert.equal(await Deno.readTextFile(file), "mine", name);
  }
});

gpuTest("a run's folder that is removed under way is not made anew", async (gpu) => {
  const names = [
    "config.json",
    "results.json",
    "metrics.jsonl",
    "a run's model",
    "report.html",
    "a study's cell",
  ];
  const all = writers(gpu);
  for (const name of names) {
    const folder = join(temporaryFolder(), "run");
    await Deno.mkdir(folder);
    await all[name](folder, 1);
    await Deno.remove(folder, { recursive: true });
    await refused(name, all[name], folder);
    await assert.rejects(Deno.lstat(folder), Deno.errors.NotFound, name);
  }
});

Deno.test("an older picture that cannot be removed: one line that names its folder", async () => {
  const folder = temporaryFolder();
  await writeMarkdown(join(folder, "study.md"), REPORT(1));
  await Deno.writeTextFile(join(folder, "study", "old.svg"), "<svg/>");
  const { remove } = Deno;
  Deno.remove = () =>
    Promise.reject(Object.assign(new Error("Read-only file system (os error 30)"), { code: "EROFS" }));
  try {
    await refused("a study's document", (place) => writeMarkdown(join(place, "study.md"), REPORT(2)), folder);
  } finally {
    Deno.remove = remove;
  }
});

/** What was asked of the file system, in order. */
const kindsOf = (operations: readonly string[]) => operations.map((one) => one.split(" ", 1)[0]);

for (const fault of ["full", "killed"] as const) {
  Deno.test(`each operation of a file that is written atomically fails, as ${fault}`, async () => {
    for (let at = 0;; at++) {
      const folder = temporaryFolder();
      const path = join(folder, "results.json");
      await Deno.writeTextFile(path, "old");
      const { fileSystem, operations } = faultyFileSystem(at, fault);
      const write = (append: (bytes: Uint8Array) => Promise<void>) =>
        append(new TextEncoder().encode("new content"));
      const error = await writeFileAtomically(path, write, { fileSystem }).then(() => undefined, (e) => e);
      if (operations[at] === undefined) {
        assert.equal(error, undefined);
        // Its bytes are on the disk before it has its name, and the name is before it is said to be written.
        assert.deepEqual(kindsOf(operations), ["open", "write", "sync", "rename", "open", "sync"]);
        break;
      }
      const text = await Deno.readTextFile(path);
      // Flushing the folder comes after the name.
      const isRenamed = operations.slice(0, at).some((one) => one.startsWith("rename"));
      assert.equal(text, isRenamed ? "new content" : "old", operations[at]);
      if (fault === "killed") continue;
      assert.ok(error instanceof InputError && error.message.includes(path), `${operations[at]}: ${error}`);
      assert.deepEqual([...Deno.readDirSync(folder)].map(({ name }) => name), ["results.json"]);
    }
  });

  Deno.test(`each operation of a folder that is written atomically fails, as ${fault}`, async () => {
    const [seen, old] = [new Set<string>(), ["config.json", "old"]];
    for (let at = 0;; at++) {
      const folder = temporaryFolder();
      const path = join(folder, "model");
      await Deno.mkdir(path);
      for (const name of old) await Deno.writeTextFile(join(path, name), "old");
      const { fileSystem, operations } = faultyFileSystem(at, fault);
      const error = await writeFolderAtomically(path, async (partial) => {
        await Deno.writeTextFile(join(partial, "config.json"), "new");
      }, { fileSystem }).then(() => undefined, (e) => e);
      if (operations[at] === undefined) {
        assert.equal(error, undefined);
        assert.deepEqual(kindsOf(operations), ["mkdir", "rename", "rename", "open", "sync", "remove"]);
        assert.deepEqual([...Deno.readDirSync(folder)].map(({ name }) => name), ["model"]);
        break;
      }
      const names = [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
      if (fault === "killed") {
        // Whole under one of its names: the run writes it again, and removes the others.
        const [first] = names;
        const found = [...Deno.readDirSync(join(folder, first))].length;
        assert.ok(found === 2 || found === 1, `${operations[at]}: ${names}`);
        continue;
      }
      assert.ok(error instanceof InputError && error.message.includes(path), `${operations[at]}: ${error}`);
      const text = await Deno.readTextFile(join(path, "config.json"));
      seen.add(text);
      assert.ok(text === "new" || names.join() === "model", `${operations[at]}: ${names}`);
      assert.equal([...Deno.readDirSync(path)].length, text === "new" ? 1 : 2, operations[at]);
    }
    if (fault === "full") assert.deepEqual([...seen].sort(), ["new", "old"]);
  });
}
