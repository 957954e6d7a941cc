/**
 * The launcher as a process: what it answers by itself, how it hands its process over, and that nothing is left behind.
 *
 * @module
 */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { LAUNCHER } from "../launcher.ts";
import { DIGIT_PAIRS, runTask, succeed, writeCheckpoint, writeLines } from "../story/user.ts";
import { temporaryFolder } from "../tiny_model.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const ON_POSIX = Deno.build.os !== "windows";

async function workspace(): Promise<{ folder: string; model: string; data: string }> {
  const folder = temporaryFolder();
  const model = join(folder, "model");
  await writeCheckpoint(model);
  return { folder, model, data: await writeLines(join(folder, "pairs.jsonl"), DIGIT_PAIRS) };
}

Deno.test("what needs no command is answered without one: the launcher may start nothing", async () => {
  const libraries = LAUNCHER.filter((word) => word !== "--allow-ffi");
  assert.equal(libraries.length, LAUNCHER.length - 1);
  const answer = async (words: string[]) => {
    const args = ["run", "--no-prompt", ...libraries.slice(1), ...words];
    const output = await new Deno.Command(Deno.execPath(), { args, cwd: ROOT, env: { NO_COLOR: "1" } })
      .output();
    const [out, error] = [output.stdout, output.stderr].map((bytes) => new TextDecoder().decode(bytes));
    return { code: output.code, out, error };
  };
  for (const words of [[], ["--help"], ["train", "--help"], ["help", "eval"]]) {
    const { code, out, error } = await answer(words);
    assert.deepEqual([code, error], [0, ""], words.join(" "));
    assert.match(out, /^Usage: deno task /);
  }
  const { folder, model, data } = await workspace();
  const wrong: [string[], RegExp][] = [
    [["trian"], /^error: Cannot run "trian": .*did you mean train\?/],
    [["train", "--betta", "1"], /^error: Cannot use --betta: .*did you mean --beta\?/],
    [["train", "--beta", "-1"], /^error: Cannot use --beta: /],
    [["train", "--resume", "--output", folder], /^error: Cannot read .*config\.json: /],
    [["train", "--config", join(folder, "none.json")], /^error: Cannot read .*none\.json: /],
    [["eval", "--shots", "x"], /^error: Cannot use --shots: /],
    [
      ["eval", "--model", model, "--data", data, "--output", join(folder, "no", "e.json")],
      /^error: Cannot write --output .*: expected an existing folder, found none/,
    ],
    [
      ["merge", "--model", model, "--output", join(folder, "a,b")],
      /^error: Cannot use .*a,b: expected a path without a comma/,
    ],
  ];
  for (const [words, message] of wrong) {
    const { code, out, error } = await answer(words);
    assert.deepEqual([code, out], [1, ""], `${words.join(" ")}: ${error}`);
    assert.match(error, message);
  }
  // With anything else it would start a program.
  assert.match((await answer(["inspect", "--model", model, "--data", data])).error, /NotCapable.*ffi/);
});

Deno.test("exit codes and streams are the command's own", async () => {
  const { model, data } = await workspace();
  const { code, out, error } = await runTask("inspect", ["--model", model, "--data", data, "--json"]);
  assert.deepEqual([code, error], [0, ""]);
  assert.ok(JSON.parse(out));
  const failed = await runTask("inspect", ["--model", model, "--data", `${data}.gone`]);
  assert.deepEqual([failed.code, failed.out], [1, ""]);
  assert.match(failed.error, /^error: .*gone/);
});

Deno.test({
  name: "killing the process that was started ends the run: there is no other",
  ignore: !ON_POSIX,
  async fn() {
    const { folder, model, data } = await workspace();
    const output = join(folder, "run");
    const child = new Deno.Command(Deno.execPath(), {
      args: [
        ...[...LAUNCHER, "train", "--model", model, "--data", data, "--output", output],
        ...["--max-steps", "100000", "--batch-size", "2", "--log-every", "1"],
      ],
      ...{ cwd: ROOT, stdin: "null", stdout: "null", stderr: "piped" },
    }).spawn();
    let [text, isKilled] = ["", false];
    for await (const part of child.stderr.pipeThrough(new TextDecoderStream())) {
      text += part;
      if (isKilled || !/dpo {2}\d+\/100000/.test(text)) continue;
      isKilled = true;
      const ps = new Deno.Command("ps", { args: ["-o", "pid=", "--ppid", `${child.pid}`] });
      assert.equal(new TextDecoder().decode((await ps.output()).stdout).trim(), "", "a process of its own");
      child.kill("SIGKILL");
    }
    // Standard error is at its end: nobody holds it who could go on training.
    assert.ok(isKilled, text);
    assert.equal((await child.status).signal, "SIGKILL");
  },
});

Deno.test("without --output a run takes the next free folder, which alone it may write", async () => {
  const { folder, model, data } = await workspace();
  const launcher = LAUNCHER.map((word) => word.endsWith("launch.ts") ? join(ROOT, word) : word);
  for (const name of ["dpo", "dpo-2"]) {
    const { code, stderr } = await new Deno.Command(Deno.execPath(), {
      args: [...launcher, "train", "--model", model, "--data", data, "--max-steps", "1", "--batch-size", "2"],
      cwd: folder,
    }).output();
    assert.equal(code, 0, new TextDecoder().decode(stderr));
    assert.ok(existsSync(join(folder, "runs", name, "results.json")), name);
  }
});

Deno.test("settings of a file and of an earlier run name places, too", async () => {
  const { folder, model, data } = await workspace();
  const config = join(folder, "config.json");
  const output = join(folder, "deep", "run");
  const settings = { model, data, evalData: data, output, maxSteps: 2, batchSize: 2, saveSteps: 1 };
  await Deno.writeTextFile(config, JSON.stringify(settings));
  await succeed("train", ["--config", config]);
  await Deno.remove(config);
  const out = await succeed("train", ["--resume", "--output", output]);
  assert.match(out, /^Going on after step 2/m);
});
