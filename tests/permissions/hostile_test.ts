/**
 * Folders made to lead a run elsewhere: links, and names that climb.
 *
 * @module
 */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { InputError } from "../../train/errors.ts";
import { refuseStrayLinks } from "../../train/launch/links.ts";
import { DIGIT_PAIRS, runTask, succeed, writeCheckpoint, writeLines } from "../story/user.ts";
import { temporaryFolder } from "../tiny_model.ts";

// Few users may make links on Windows.
const ignore = Deno.build.os === "windows";
const LEADS_OUT =
  /^error: Cannot use .*: expected links that stay in the folder, found .*, which leads to \//m;

interface Workspace {
  readonly folder: string;
  readonly model: string;
  readonly data: string;
  readonly outside: string;
}

async function workspace(): Promise<Workspace> {
  const folder = temporaryFolder();
  const model = join(folder, "model");
  await writeCheckpoint(model);
  const data = await writeLines(join(folder, "pairs.jsonl"), DIGIT_PAIRS);
  const outside = join(folder, "outside");
  await Deno.mkdir(outside);
  await Deno.writeTextFile(join(outside, "secret"), "a secret");
  return { folder, model, data, outside };
}

Deno.test({
  name: "a model folder whose link leads out is refused before anything of it is read",
  ignore,
  async fn() {
    const { folder, model, data, outside } = await workspace();
    for (const name of ["tokenizer_config.json", "chat_template.jinja", "generation_config.json"]) {
      const target = join(model, name);
      const kept = existsSync(target) ? await Deno.readFile(target) : undefined;
      if (kept) await Deno.remove(target);
      await Deno.symlink(join(outside, "secret"), target);
      for (
        const [task, words] of [
          ["inspect", ["--data", data]],
          ["train", ["--data", data, "--output", join(folder, "run")]],
          ["generate", ["--prompt", "1"]],
        ] as const
      ) {
        const { code, out, error } = await runTask(task, ["--model", model, ...words]);
        assert.equal(code, 1, `${task} ${name}`);
        assert.match(error, LEADS_OUT);
        assert.ok(error.includes(target) && !`${out}${error}`.includes("a secret"));
      }
      await Deno.remove(target);
      if (kept) await Deno.writeFile(target, kept);
    }
    assert.ok(!existsSync(join(folder, "run")));
  },
});

Deno.test({
  name: "a run folder whose link leads out is not gone on with, nor shown",
  ignore,
  async fn() {
    const { folder, model, data, outside } = await workspace();
    const run = join(folder, "run");
    const flags = ["--max-steps", "2", "--batch-size", "2", "--save-steps", "1"];
    await succeed("train", ["--model", model, "--data", data, "--output", run, ...flags]);
    await Deno.rename(join(run, "checkpoints"), join(outside, "checkpoints"));
    await Deno.symlink(join(outside, "checkpoints"), join(run, "checkpoints"));
    const before = [...Deno.readDirSync(join(outside, "checkpoints"))].length;
    for (
      const [task, words] of [
        ["train", ["--resume", "--output", run]],
        ["train", ["--model", model, "--data", data, "--output", run, "--overwrite"]],
        ["report", [run]],
      ] as const
    ) {
      const { code, error } = await runTask(task, words);
      assert.equal(code, 1, words.join(" "));
      assert.match(error, LEADS_OUT);
    }
    assert.equal([...Deno.readDirSync(join(outside, "checkpoints"))].length, before);
  },
});

Deno.test({
  name:
    "links are fine that stay in their folder, or are the folder, a file that is named, or the hub's blobs",
  ignore,
  async fn() {
    const { folder, model, data } = await workspace();
    const run = async (from: string, records: string) => {
      const out = await succeed("inspect", ["--model", from, "--data", records, "--json"]);
      return out.replaceAll(/"[^"]*\.jsonl[^"]*"/g, '"a file"');
    };
    const expected = await run(model, data);
    const linked = join(folder, "model-link");
    await Deno.symlink(model, linked);
    await Deno.symlink(data, join(folder, "link.jsonl"));
    assert.equal(await run(linked, join(folder, "link.jsonl")), expected);

    const snapshot = join(folder, "models--owner--name", "snapshots", "0".repeat(40));
    const blobs = join(folder, "models--owner--name", "blobs");
    await Deno.mkdir(snapshot, { recursive: true });
    await Deno.mkdir(blobs);
    for (const { name } of Deno.readDirSync(model)) {
      await Deno.copyFile(join(model, name), join(blobs, name));
      await Deno.symlink(join("..", "..", "blobs", name), join(snapshot, name));
    }
    assert.equal(await run(snapshot, data), expected);
    await Deno.symlink(join("..", "..", "..", "outside", "secret"), join(snapshot, "other.json"));
    const { code, error } = await runTask("inspect", ["--model", snapshot, "--data", data]);
    assert.equal(code, 1);
    assert.match(error, LEADS_OUT);
  },
});

Deno.test({
  name: "a run whose model, data and output lie behind links works as any",
  ignore,
  async fn() {
    const { folder, model, data } = await workspace();
    const behind = (name: string) => join(folder, "link", name);
    await Deno.symlink(folder, join(folder, "link"));
    const flags = ["--model", behind("model"), "--data", behind("pairs.jsonl"), "--output", behind("run")];
    const few = ["--max-steps", "2", "--batch-size", "2", "--save-steps", "1"];
    await succeed("train", [...flags, ...few]);
    await succeed("train", ["--resume", "--output", behind("run")]);
    const snapshot = join(folder, "snapshots", "1");
    await Deno.mkdir(snapshot, { recursive: true });
    await Deno.mkdir(join(folder, "blobs"));
    for (const { name } of Deno.readDirSync(model)) {
      await Deno.copyFile(join(model, name), join(folder, "blobs", name));
      await Deno.symlink(join("..", "..", "blobs", name), join(snapshot, name));
    }
    const output = join(folder, "link", "e.json");
    await Deno.symlink(data, output);
    await succeed("eval", ["--model", snapshot, "--data", data, "--output", output, "--overwrite"]);
    assert.equal(
      (await Deno.readTextFile(data)).split("\n").length,
      DIGIT_PAIRS.length + 1,
      "replaced, not followed",
    );
  },
});

Deno.test({
  name: "links are followed to their end, at any depth; links to nothing and folders that are not there pass",
  ignore,
  async fn() {
    const { folder, model, outside } = await workspace();
    const deep = join(model, "a", "b");
    await Deno.mkdir(deep, { recursive: true });
    await Deno.symlink(join("..", "..", "config.json"), join(deep, "inside"));
    await Deno.symlink("nowhere", join(deep, "dangling"));
    await refuseStrayLinks([model, join(folder, "absent"), join(model, "config.json")]);
    const refused = async (link: string, target: string) => {
      await Deno.symlink(target, link);
      await assert.rejects(refuseStrayLinks([model]), InputError);
      await Deno.remove(link);
    };
    await refused(join(deep, "folder"), outside);
    await refused(join(deep, "up"), folder);
    // Names that begin alike are not below one another.
    await Deno.mkdir(`${model}-2`);
    await refused(join(deep, "neighbour"), `${model}-2`);
    await Deno.symlink(join(outside, "secret"), join(outside, "chain"));
    await refused(join(deep, "chained"), join(outside, "chain"));
    await refuseStrayLinks([model]);
  },
});

Deno.test("an adapter's base is read only where it is a model; another folder stays closed", async () => {
  const { folder, model, data, outside } = await workspace();
  const run = join(folder, "run");
  const lora = ["--lora.rank", "2", "--max-steps", "1", "--batch-size", "2"];
  await succeed("train", ["--model", model, "--data", data, "--output", run, ...lora]);
  const adapter = join(run, "model");
  const settings = JSON.parse(await Deno.readTextFile(join(adapter, "adapter_config.json")));
  assert.equal(settings.base_model_name_or_path, model);
  for (const base of [outside, dirname(folder), "/etc"]) {
    const changed = JSON.stringify({ ...settings, base_model_name_or_path: base });
    await Deno.writeTextFile(join(adapter, "adapter_config.json"), changed);
    const { code, error } = await runTask("generate", ["--model", adapter, "--prompt", "1"]);
    assert.equal(code, 1);
    assert.match(
      error,
      /^error: Cannot load the adapter .*: expected its base, a folder with config\.json, in /m,
    );
  }
  const ofHub = JSON.stringify({ ...settings, base_model_name_or_path: "tester/none" });
  await Deno.writeTextFile(join(adapter, "adapter_config.json"), ofHub);
  const offline = { HF_HUB_OFFLINE: "1", HF_HUB_CACHE: join(folder, "hub") };
  const { code, error } = await runTask("generate", ["--model", adapter, "--prompt", "1"], { env: offline });
  assert.equal(code, 1);
  assert.match(
    error,
    /^error: Cannot load tester\/none: expected all of it in .*hub, as HF_HUB_OFFLINE is set/m,
  );
});

Deno.test("names in a model's files that climb out of it, and data that is none, are refused", async () => {
  const { model, data, folder } = await workspace();
  await Deno.remove(join(model, "model.safetensors"));
  const index = { metadata: {}, weight_map: { "lm_head.weight": "../outside/secret.safetensors" } };
  await Deno.writeTextFile(join(model, "model.safetensors.index.json"), JSON.stringify(index));
  const climbed = await runTask("generate", ["--model", model, "--prompt", "1"]);
  assert.equal(climbed.code, 1);
  assert.match(climbed.error, /the plain name of a \.safetensors file beside the index/);

  const above = join(folder, "x", "..", "outside", "secret");
  const { code, out, error } = await runTask("inspect", ["--model", model, "--data", `${data},${above}`]);
  assert.equal(code, 1);
  assert.ok(!`${out}${error}`.includes("a secret"));
});
