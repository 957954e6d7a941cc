/**
 * Every command, from its task in deno.json to its end, with the permissions that it gets.
 *
 * @module
 */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { COMMANDS } from "../../train/commands/registry.ts";
import { DIGIT_PAIRS, succeed, writeCheckpoint, writeLines } from "../story/user.ts";
import { temporaryFolder } from "../tiny_model.ts";

Deno.test("every command works within its permissions", async (t) => {
  const folder = temporaryFolder();
  const at = (...names: string[]) => join(folder, ...names);
  const model = at("model");
  await writeCheckpoint(model);
  const data = await writeLines(at("pairs.jsonl"), DIGIT_PAIRS);
  const sft = await writeLines(
    at("sft.jsonl"),
    DIGIT_PAIRS.map(({ prompt, chosen }) => ({ prompt, completion: chosen })),
  );
  const few = ["--max-steps", "2", "--batch-size", "2", "--log-every", "1"];
  const run = ["--model", model, "--data", data, "--eval-data", data];
  const seen = new Set<string>();
  const command = (name: string, args: string[], leaves: string[] = [], input?: string) =>
    t.step(`${name} ${args.join(" ").replaceAll(folder, "")}`, async () => {
      seen.add(name);
      await succeed(name, args, { input });
      for (const path of leaves) assert.ok(existsSync(path), path);
    });

  await command("inspect", ["--model", model, "--data", `${data},${sft}`, "--as", "completions"]);
  await command("train", [...run, ...few, "--output", at("whole"), "--save-steps", "1"], [
    at("whole", "results.json"),
    at("whole", "checkpoints"),
  ]);
  await command("train", ["--resume", "--output", at("whole")], [at("whole", "results.json")]);
  await command("train", [...run, ...few, "--output", at("whole"), "--overwrite", "--save-steps", "1"]);
  await command("train", [...run, ...few, "--output", at("dry"), "--dry-run"]);
  await command("train", [...run, ...few, "--output", at("dry"), "--inspect"]);
  assert.ok(!existsSync(at("dry")));
  await command(
    "train",
    [
      ...[...run, ...few, "--output", at("lora"), "--lora.rank", "2", "--spo.solver", "unrolled"],
      ...["--spo.sft-data", sft, "--spo.inner-learning-rate", "0.01"],
    ],
    [at("lora", "model", "adapter_model.safetensors")],
  );
  const adapter = at("lora", "model");
  await command("train", ["--model", adapter, "--data", data, ...few, "--output", at("more")], [
    at("more", "model"),
  ]);
  await command("eval", ["--model", adapter, "--reference", model, "--data", data, "--tune", "off"]);
  await command(
    "eval",
    ["--model", model, "--data", data, "--output", at("e.json"), "--details", at("d.jsonl")],
    [at("e.json"), at("d.jsonl")],
  );
  await command("eval", ["--model", model, "--task", "arithmetic", "--limit", "2"]);
  await command("generate", [
    "--model",
    adapter,
    "--base",
    model,
    "--prompt",
    "1+1:",
    "--max-new-tokens",
    "2",
  ]);
  await command("generate", ["--model", model, "--chat", "--max-new-tokens", "2", "--stats"], [], "1+1:");
  await command("chat", ["--model", adapter, "--max-new-tokens", "2"], [], "1+1:\n/reset\n2+2:\n/exit\n");
  await command("merge", ["--model", adapter, "--output", at("new", "merged")], [
    at("new", "merged", "config.json"),
  ]);
  await command("report", [at("whole"), at("lora")], [at("whole", "report.html")]);
  await command("report", [at("lora"), "--output", at("page.html")], [at("page.html")]);
  await command("bench", ["--probe"]);
  await command("wgsl", ["--list"]);
  await command("bench", ["--decode", "--model", model, "--samples", "1"]);
  await command("profile", ["--model", model, "--data", data, "--batch-size", "2", "--steps", "1"]);
  // `study` takes minutes: it is stopped in tests/faults/signals_test.ts, its files are written in tests/study.
  assert.deepEqual([...seen, "study"].sort(), Object.keys(COMMANDS).sort());
});
