/**
 * The command line as a user meets it: in its own process, with its exit code, and what it leaves behind.
 *
 * @module
 */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { characterTokenizerFiles } from "../../train/data/character_tokenizer.ts";
import { parseModelConfig } from "../../train/models/config.ts";
import { architectureOf } from "../../train/models/registry.ts";
import { writeSafetensors } from "../../train/models/safetensors_write.ts";
import { createRandom, fillNormal } from "../../train/random.ts";
import { LAUNCHER } from "../launcher.ts";
import { SHARED_DATA, testWithSharedData } from "../shared_data.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly error: string;
}

async function keel(args: readonly string[], options: { stopAfter?: string } = {}): Promise<Outcome> {
  const child = new Deno.Command(Deno.execPath(), {
    args: [...LAUNCHER, ...args],
    cwd: ROOT,
    env: { NO_COLOR: "1" },
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const decoder = new TextDecoder();
  const collect = async (stream: ReadableStream<Uint8Array>): Promise<string> => {
    let text = "";
    let isStopped = options.stopAfter === undefined;
    for await (const part of stream) {
      text += decoder.decode(part, { stream: true });
      if (!isStopped && text.includes(options.stopAfter!)) {
        isStopped = true;
        child.kill("SIGINT");
      }
    }
    return text;
  };
  const [out, error, { code }] = await Promise.all([
    collect(child.stdout),
    collect(child.stderr),
    child.status,
  ]);
  assert.doesNotMatch(out + error, CONTROL, "neither goes to a terminal");
  return { code, out, error };
}

/** All but the end of a line. */
// deno-lint-ignore no-control-regex
const CONTROL = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/;

const CONFIG = {
  model_type: "llama",
  vocab_size: 16,
  hidden_size: 16,
  intermediate_size: 32,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  max_position_embeddings: 32,
};

/** A model folder of random weights, made without a GPU; `change` may spoil it. */
async function makeModel(folder: string, change: Partial<Record<string, unknown>> = {}): Promise<void> {
  await Deno.mkdir(folder);
  const config = parseModelConfig(CONFIG, { file: "test" });
  const random = createRandom(1);
  const tensors = [...architectureOf(config).shapes].map(([name, shape]) => ({
    name,
    shape,
    data: () => fillNormal(random, { target: new Float32Array(shape.reduce((a, b) => a * b, 1)), std: 0.1 }),
  }));
  await writeSafetensors(join(folder, "model.safetensors"), tensors, { dtype: "f32" });
  await Deno.writeTextFile(join(folder, "config.json"), JSON.stringify({ ...CONFIG, ...change }));
  for (const [name, bytes] of characterTokenizerFiles("0123456789+-:,$", { eos: "$" })) {
    await Deno.writeFile(join(folder, name), bytes);
  }
}

const PAIRS = Array.from(
  { length: 8 },
  (_, i) => ({ prompt: `${i}+1:`, chosen: `${i + 1}$`, rejected: "0$" }),
);

/** A folder with a good model and good data. */
async function workspace(): Promise<{ folder: string; args: string[]; output: string }> {
  const folder = await Deno.makeTempDir({ prefix: "keel-cli-" });
  await makeModel(join(folder, "model"));
  await Deno.writeTextFile(join(folder, "pairs.jsonl"), PAIRS.map((pair) => JSON.stringify(pair)).join("\n"));
  const output = join(folder, "run");
  const args = [
    "train",
    "--model",
    join(folder, "model"),
    "--data",
    join(folder, "pairs.jsonl"),
    "--output",
    output,
  ];
  return { folder, args: [...args, "--batch-size", "4", "--log-every", "2"], output };
}

/** Runs a bad command in a workspace: exit code 1, one line of error that matches, and no run folder. */
function refuses(
  name: string,
  prepare: (space: { folder: string; args: string[]; output: string }) => Promise<string[]> | string[],
  expected: RegExp,
): void {
  Deno.test(`the command line refuses ${name}`, async () => {
    const space = await workspace();
    try {
      const { code, error } = await keel(await prepare(space));
      assert.equal(code, 1, error);
      const lines = error.trim().split("\n").filter((line) => !line.startsWith("Adapter"));
      assert.equal(lines.length, 1, error);
      assert.match(lines[0], expected);
      assert.ok(!existsSync(join(space.output, "metrics.jsonl")), "nothing may be half-written");
    } finally {
      await Deno.remove(space.folder, { recursive: true });
    }
  });
}

const withData = async (
  { folder, args }: { folder: string; args: string[] },
  text: string,
): Promise<string[]> => {
  await Deno.writeTextFile(join(folder, "pairs.jsonl"), text);
  return args;
};

const withModel =
  (change: Partial<Record<string, unknown>>) =>
  async (space: { folder: string; args: string[] }): Promise<string[]> => {
    await Deno.remove(join(space.folder, "model"), { recursive: true });
    await makeModel(join(space.folder, "model"), change);
    return space.args;
  };

refuses("an unknown flag", ({ args }) => [...args, "--learning-rte", "1"], /did you mean --learning-rate/);
refuses(
  "an unknown key in a config file",
  async ({ folder, args }) => {
    await Deno.writeTextFile(join(folder, "keel.json"), '{"betta": 0.1}');
    return [...args, "--config", join(folder, "keel.json")];
  },
  /keel\.json.*betta.*did you mean beta/,
);
refuses(
  "a malformed line",
  (space) => withData(space, `${JSON.stringify(PAIRS[0])}\n{"prompt": "1",\n`),
  /pairs\.jsonl:2.*malformed JSON/,
);
refuses(
  "a quantized model",
  withModel({ quantization_config: { bits: 4 } }),
  /config\.json.*quantization_config/,
);
refuses(
  "a truncated checkpoint",
  async ({ folder, args }) => {
    await Deno.truncate(join(folder, "model", "model.safetensors"), 400);
    return args;
  },
  /model\.safetensors/,
);
refuses(
  "an output folder that exists",
  async ({ output, args }) => {
    await Deno.mkdir(output);
    await Deno.writeTextFile(join(output, "thesis.txt"), "mine");
    return args;
  },
  /run.*--overwrite/,
);

Deno.test("a run writes its settings, metrics and a model that loads again", async () => {
  const { folder, args, output } = await workspace();
  try {
    const first = await keel([...args, "--max-steps", "4", "--spo.solver", "penalty"]);
    assert.equal(first.code, 0, first.error);
    assert.match(first.out, /reward accuracy/);
    const lines = (await Deno.readTextFile(join(output, "metrics.jsonl"))).trim().split("\n").map((line) =>
      JSON.parse(line)
    );
    assert.deepEqual(lines.map((line) => line.global_step), [2, 4]);
    const names = [
      "loss",
      "grad_norm",
      "learning_rate",
      "rewards/accuracies",
      "logps/chosen",
      "spo/gap",
      "gpu_memory_bytes",
    ];
    for (const key of [...names, "displacement/fraction"]) assert.equal(typeof lines[0][key], "number", key);
    const config = JSON.parse(await Deno.readTextFile(join(output, "config.json")));
    assert.deepEqual([config.beta, config.maxSteps, config.spo.lambda], [0.1, 4, 1]);
    // Its own config.json, with only another folder, gives the same run.
    const again = join(folder, "again");
    const config_json = join(output, "config.json");
    const second = await keel([
      "train",
      "--config",
      config_json,
      "--output",
      again,
      "--model",
      join(output, "model"),
    ]);
    assert.equal(second.code, 0, second.error);
    const third = join(folder, "third");
    assert.equal((await keel(["train", "--config", config_json, "--output", third])).code, 0);
    const numbers = async (run: string) =>
      (await Deno.readTextFile(join(run, "metrics.jsonl"))).replaceAll(/"tokens_per_second":[^,}]*/g, "");
    assert.equal(await numbers(third), await numbers(output));
    const samples = (await Deno.readTextFile(join(third, "samples.jsonl"))).trim().split("\n").map((line) =>
      JSON.parse(line)
    );
    assert.deepEqual(
      samples.map(({ phase }) => phase),
      ["before", "after"].flatMap((at) => Array(4).fill(at)),
    );
    assert.deepEqual([samples[0].prompt, samples[0].chosen], ["0+1:", "1$"]);
    // A report is part of the run, and goes with it.
    assert.equal((await keel(["report", third])).code, 0);
    assert.match(await Deno.readTextFile(join(third, "report.html")), /Greedy answers/);
    const replaced = await keel(["train", "--config", config_json, "--output", third, "--overwrite"]);
    assert.equal(replaced.code, 0, replaced.error);
    assert.ok(!existsSync(join(third, "report.html")));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("--ld-alpha: in the run's settings and numbers, and refused with reference log-probs of the data", async () => {
  const { folder, args, output } = await workspace();
  try {
    const longer = PAIRS.map((pair) => ({ ...pair, rejected: "0000$" }));
    const write = (rows: readonly object[]) =>
      Deno.writeTextFile(join(folder, "pairs.jsonl"), rows.map((row) => JSON.stringify(row)).join("\n"));
    await write(longer);
    const steps = ["--loss", "dpo", "--max-steps", "1"];
    const first = async (run: string, ...flags: string[]) => {
      const { code, error } = await keel([...args.with(6, run), ...steps, ...flags]);
      assert.equal(code, 0, error);
      return JSON.parse((await Deno.readTextFile(join(run, "metrics.jsonl"))).split("\n")[0]);
    };
    const [ld, off] = [await first(output, "--ld-alpha", "0.5"), await first(join(folder, "off"))];
    assert.equal(ld["logps/chosen"], off["logps/chosen"], "the shorter side");
    // Ids are nearly equally likely at first: 2 + 0.5 * 3 tokens instead of 5.
    const share = ld["logps/rejected"] / off["logps/rejected"];
    assert.ok(Math.abs(share - 3.5 / 5) < 0.05, `found ${share}`);
    assert.ok(Math.abs(ld.loss - Math.LN2) < 1e-6);
    assert.equal(JSON.parse(await Deno.readTextFile(join(output, "config.json"))).ldAlpha, 0.5);
    await write(
      longer.map((pair) => ({ ...pair, reference_chosen_logps: -3, reference_rejected_logps: -4 })),
    );
    const never = join(folder, "never");
    const refused = await keel([...args.with(6, never), ...steps, "--ld-alpha", "0.5"]);
    assert.equal(refused.code, 1);
    assert.match(
      refused.error,
      /ldAlpha 0\.5: expected data without log-probs of a reference.*pairs\.jsonl:1/,
    );
    assert.ok(!existsSync(never));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("--eval-steps: held-out metrics in the lines whose turn it is, and only in lines that there are", async () => {
  const { folder, args, output } = await workspace();
  try {
    const flags = ["--max-steps", "5", "--log-every", "1", "--eval-steps", "2"];
    const { code, error } = await keel([...args.slice(0, -2), ...flags]);
    assert.equal(code, 0, error);
    const lines = (await Deno.readTextFile(join(output, "metrics.jsonl"))).trim().split("\n")
      .map((line) => JSON.parse(line));
    const looked = lines.filter((line) => line.eval_loss !== undefined);
    assert.deepEqual(looked.map(({ global_step }) => global_step), [2, 4, 5], "and at the end");
    for (const name of ["eval_rewards/margins", "eval_logps/chosen", "eval_entropy", "eval_logits/chosen"]) {
      assert.equal(typeof looked[0][name], "number", name);
    }
    const never = await keel([...args.with(6, join(folder, "never")), "--eval-steps", "3"]);
    assert.equal(never.code, 1);
    assert.match(never.error, /--eval-steps: expected a multiple of the 2 steps .*, found 3/);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a run with --use-weighting weighs its pairs, and says so in its settings", async () => {
  const { folder, args, output } = await workspace();
  try {
    const { code, error } = await keel([...args, "--max-steps", "2", "--use-weighting"]);
    assert.equal(code, 0, error);
    const [line] = (await Deno.readTextFile(join(output, "metrics.jsonl"))).trim().split("\n");
    const { loss, ...record } = JSON.parse(line);
    assert.ok(Number.isFinite(loss) && Math.abs(loss - Math.LN2) > 1e-2, `${loss} is not the plain loss`);
    for (const name of ["entropy", "mean_token_accuracy", "logits/chosen", "logits/rejected"]) {
      assert.equal(typeof record[name], "number", name);
    }
    const config = JSON.parse(await Deno.readTextFile(join(output, "config.json")));
    assert.equal(config.useWeighting, true);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("LoRA: trained, trained on, and merged, each by one command", async () => {
  const { folder } = await workspace();
  try {
    const at = (name: string) => join(folder, name);
    const losses = async (run: string) =>
      (await Deno.readTextFile(join(run, "metrics.jsonl"))).trim().split("\n").map((line) =>
        JSON.parse(line).loss
      );
    const train = async (model: string, run: string, ...flags: string[]) => {
      const data = ["--data", at("pairs.jsonl"), "--batch-size", "4", "--log-every", "1"];
      const { code, error } = await keel(["train", "--model", model, ...data, "--output", run, ...flags]);
      return { code, error };
    };
    const lora = ["--lora.rank", "4", "--lora.target-modules", "q_proj,down_proj", "--base-dtype", "bf16"];
    const first = await train(
      at("model"),
      at("first"),
      "--max-steps",
      "30",
      "--learning-rate",
      "0.1",
      ...lora,
    );
    assert.equal(first.code, 0, first.error);
    const adapter = join(at("first"), "model");
    assert.deepEqual((await Array.fromAsync(Deno.readDir(adapter), ({ name }) => name)).sort(), [
      ...[
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
      ],
    ]);
    const config = JSON.parse(await Deno.readTextFile(join(at("first"), "config.json")));
    assert.deepEqual(config.lora, {
      ...{ rank: 4, alpha: 8, targetModules: "q_proj,down_proj", rslora: false, reference: "start" },
    });
    // Going on from an adapter, the reference is the model as it starts; or the base, which gives another first loss.
    const onward = ["--max-steps", "1", "--base-dtype", "bf16"];
    assert.equal((await train(adapter, at("second"), ...onward)).code, 0);
    assert.ok(Math.abs((await losses(at("second")))[0] - Math.LN2) < 1e-6);
    assert.equal((await train(adapter, at("third"), ...onward, "--lora.reference", "base")).code, 0);
    assert.ok((await losses(at("third")))[0] < Math.LN2 - 1e-4);
    for (
      const [flags, message] of [
        [["--lora.rank", "8"], /^error: Cannot use a new LoRA rank: .* found the adapter .*first\/model/m],
        [["--base", at("nowhere")], /^error: Cannot load the adapter .*nowhere/m],
      ] as const
    ) {
      const refused = await train(adapter, at("never"), ...flags);
      assert.equal(refused.code, 1);
      assert.match(refused.error, message);
    }
    assert.ok(!existsSync(at("never")));
    const merge = ["merge", "--model", adapter, "--output", at("merged")];
    const merged = await keel(merge);
    assert.equal(merged.code, 0, merged.error);
    assert.match(merged.out, /^Wrote .*merged: .*model with 2 layers of .*first\/model, in f32$/m);
    const refused = await keel(merge);
    assert.equal(refused.code, 1);
    assert.match(
      refused.error,
      /expected a new or empty folder, found .* in it \(use --overwrite, or another --output\)/,
    );
    assert.equal((await keel([...merge, "--overwrite", "--dtype", "bf16"])).code, 0);
    assert.equal((await train(at("merged"), at("last"), "--max-steps", "1")).code, 0);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("--json: the result alone on standard output; --quiet: no line but the result; a YAML file of TRL's names", async () => {
  const { folder, args, output } = await workspace();
  try {
    const file = join(folder, "run.yaml");
    await Deno.writeTextFile(
      file,
      "max_steps: 2\nper_device_train_batch_size: 2\ngradient_accumulation_steps: 2\n",
    );
    const words = [...args.slice(0, -4), "--log-every", "2", "--config", file];
    const asJson = await keel([...words, "--json"]);
    assert.equal(asJson.code, 0, asJson.error);
    const { folder: written, adapter, results, ...rest } = JSON.parse(asJson.out);
    assert.deepEqual([written, typeof adapter, rest], [output, "string", {}]);
    const saved = JSON.parse(await Deno.readTextFile(join(output, "results.json")));
    assert.deepEqual({ adapter, results }, saved);
    assert.match(asJson.error, /^Adapter: /m);
    const config = JSON.parse(await Deno.readTextFile(join(output, "config.json")));
    assert.deepEqual([config.batchSize, config.gradientAccumulationSteps, config.maxSteps], [4, 2, 2]);
    const quiet = await keel([...words, "--quiet", "--overwrite"]);
    assert.deepEqual([quiet.code, quiet.error], [0, ""]);
    assert.match(quiet.out, /^\nWrote .*\n$/);
    const dry = await keel([...words, "--dry-run", "--json", "--quiet", "--overwrite"]);
    assert.equal(dry.code, 0, dry.error);
    const plan = JSON.parse(dry.out);
    assert.deepEqual(Object.keys(plan).sort(), ["budgetBytes", "categories", "phases", "totalBytes"]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a dry run prints the plan of a run, or of the demonstration, and leaves nothing behind", async () => {
  const { folder, args, output } = await workspace();
  try {
    const run = await keel([...args, "--dry-run", "--max-steps", "7", "--activation-checkpointing"]);
    assert.equal(run.code, 0, run.error);
    for (
      const name of ["parameters", "gradients", "optimizer", "activations", "buffers", "total", "budget"]
    ) {
      assert.match(run.out, new RegExp(`^${name} +[\\d,]+ +[\\d.]+ (B|[KMGT]iB)$`, "m"), name);
    }
    assert.match(run.out, /^Adapter: /m);
    // Four pairs of seven tokens a side, of which three are labelled.
    assert.match(run.out, /^dpo +7 +\d+ +\d+$/m);
    const demo = await keel(["train", "--dry-run", "--output", output]);
    assert.equal(demo.code, 0, demo.error);
    assert.match(demo.out, /^dpo\+spo +150 /m);
    assert.ok(!existsSync(output));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

refuses(
  "a run over its memory budget, before it starts, naming what would help",
  ({ args }) => [...args, "--memory-budget-gb", "0.001"],
  /^error: Cannot train: expected at most 1\.02 MiB of GPU memory .*; --activation-checkpointing does .*; --gradient-acc.* does .*; --max-length does /,
);

Deno.test({
  name: "Ctrl-C stops after the current step with what was logged intact",
  ignore: Deno.build.os === "windows",
  fn: async () => {
    const { folder, args, output } = await workspace();
    try {
      const { code, error } = await keel([...args, "--max-steps", "100000"], { stopAfter: "dpo  " });
      assert.equal(code, 130, error);
      assert.match(error, /Stopped at dpo, step \d+ of 100000/);
      const text = await Deno.readTextFile(join(output, "metrics.jsonl"));
      assert.ok(text.endsWith("\n"));
      for (const line of text.trim().split("\n")) JSON.parse(line);
      assert.ok(!existsSync(join(output, "model")), "a stopped run leaves no half model");
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});

testWithSharedData("SPO on a real checkpoint and real preferences runs from the command line", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const data = join(SHARED_DATA, "preference", "rasbt.instruction-data-with-preference.json");
    const model = join(SHARED_DATA, "models", "stories260K");
    const args = ["train", "--model", model, "--data", data, "--loss", "dpo", "--spo.solver", "penalty"];
    const run = await keel([
      ...args,
      "--max-steps",
      "2",
      "--batch-size",
      "2",
      "--eval-records",
      "4",
      "--output",
      join(folder, "run"),
    ]);
    assert.equal(run.code, 0, run.error);
    assert.match(run.out, /1,?094 pairs \(.*6 identical/);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
